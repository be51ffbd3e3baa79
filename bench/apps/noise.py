"""A noise maker: as many processes as asked for, each computing for a random while, then resting for one."""

import multiprocessing
import random
import sys
import time


def disturb(seed):
    chance = random.Random(seed)
    while True:
        end = time.monotonic() + chance.uniform(0.1, 1.5)
        while time.monotonic() < end:
            pass
        time.sleep(chance.uniform(0.05, 0.6))


if __name__ == "__main__":
    for seed in range(int(sys.argv[1])):
        multiprocessing.Process(target=disturb, args=(seed,), daemon=True).start()
    sys.stdin.read()
