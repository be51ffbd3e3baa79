"""What the sleep case could reach without any server: `bare_threads.py THREADS SLEEP_SECONDS SECONDS`.

Prints how many sleeps the threads finished and how long they took."""

import sys
import threading
import time


def main() -> None:
    threads, sleep, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    start = time.monotonic()
    counts = [0] * threads

    def run(index: int) -> None:
        while time.monotonic() - start < seconds:
            time.sleep(sleep)
            counts[index] += 1

    pool = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    print(sum(counts), time.monotonic() - start)


main()
