"""Where the interpreter's lock (GIL) is in memory, so that the master can see from outside which threads wait for it.

A thread that waits for the lock sleeps in futex(2) at an address inside it, and /proc/self/task/TID/syscall shows that address.
So: start two threads that want nothing but the lock, keep it, and look at where they sleep. Linux with glibc only; elsewhere,
and where the two addresses are not next to each other (musl: they are on the stacks of the threads), there is no answer.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

# A thirtieth of a second at most: where processors are short, the threads take their time until they sleep.
_LOOKS = 150
_PAUSE_MICROSECONDS = 200
# Condition variables and mutexes of the lock lie together.
_NEAR_BYTES = 512


def find_gil() -> str | None:
    """The address as hexadecimal text; None where it cannot be found, or there is no such lock."""
    if not sys.platform.startswith("linux") or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    wanted = True

    def want() -> None:
        started.release()
        while wanted:
            pass

    started = threading.Semaphore(0)
    threads = [threading.Thread(target=want, daemon=True) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
            started.acquire()
        found = [_sleeps_at(thread.native_id or 0) for thread in threads]
    except (OSError, AttributeError, RuntimeError):
        return None
    finally:
        wanted = False
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    first, second = found
    if first is None or second is None or abs(first - second) >= _NEAR_BYTES:
        return None
    return hex(first)


def _sleeps_at(thread_id: int) -> int | None:
    """The first argument of the system call in which the thread sleeps while this one keeps the lock."""
    library = ctypes.PyDLL(None)  # calls that do not let go of the lock
    library.pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
    buffer = ctypes.create_string_buffer(256)
    fd = os.open("/proc/self/task/%d/syscall" % thread_id, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(_LOOKS):
            library.usleep(_PAUSE_MICROSECONDS)
            size = library.pread(fd, buffer, len(buffer), 0)
            parts = buffer.raw[: max(size, 0)].split()
            # "running", or "-1 ...": it is on its way.
            if len(parts) > 2 and parts[0] != b"-1" and int(parts[1], 16):
                return int(parts[1], 16)
    finally:
        os.close(fd)
    return None
