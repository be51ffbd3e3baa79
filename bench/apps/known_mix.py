"""Requests of known cost that also measure themselves: processor time, wait for the interpreter's lock, sleep. `/truth` tells.

A request works for LOCKED_MS under the lock, in PIECES, and sleeps for WAIT_MS in all between them. It asks the clock and the
kernel (schedstat), and lock_waits.c, which is preloaded, for the waits for the lock: nothing of the server's. A sleep is what
it was meant to be; what it took beyond that is in one of the others. What a thread has waited and worked since its first
request, in the app and around it, is told too: `thread_...`.
"""

import ctypes
import json
import os
import threading
import time

LOCKED_S, WAIT_S = (float(os.environ.get(name, "0")) / 1000 for name in ("LOCKED_MS", "WAIT_MS"))
PIECES = int(os.environ.get("PIECES", "2"))
_lock = threading.Lock()
_sums = {"requests": 0, "wall": 0.0, "cpu": 0.0, "cpu_wait": 0.0, "gil_wait": 0.0, "sleep": 0.0}
_threads = {}
try:
    # PyDLL: a call of it keeps the lock.
    _thread_spent_ns = ctypes.PyDLL(None).thread_spent_ns
except AttributeError:
    raise SystemExit("lock_waits.c is not preloaded") from None


def _spent():
    """Of this thread, in seconds: processor time, time without a processor, waits for the lock."""
    spent = (ctypes.c_longlong * 3)()
    _thread_spent_ns(spent)
    return tuple(each / 1e9 for each in spent)


def _work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _mix():
    began = time.perf_counter()
    before = _spent()
    slept = 0.0
    for piece in range(PIECES):
        _work(LOCKED_S / PIECES)
        if WAIT_S and piece < PIECES - 1:
            asleep = time.perf_counter()
            since = _spent()
            time.sleep(WAIT_S / (PIECES - 1))
            now = _spent()
            slept += time.perf_counter() - asleep - sum(after - earlier for after, earlier in zip(now, since))
    after = _spent()
    wall = time.perf_counter() - began
    cpu, cpu_wait, gil_wait = (now - earlier for now, earlier in zip(after, before))
    first, _ = _threads.setdefault(threading.get_native_id(), (before, before))
    _threads[threading.get_native_id()] = (first, after)
    with _lock:
        _sums["requests"] += 1
        _sums["wall"] += wall
        _sums["cpu"] += cpu
        _sums["cpu_wait"] += cpu_wait
        _sums["gil_wait"] += gil_wait
        _sums["sleep"] += slept


def _truth():
    with _lock:
        threads = [[now - since for now, since in zip(last, first)] for first, last in _threads.values()]
        totals = dict(zip(("thread_cpu", "thread_cpu_wait", "thread_gil_wait"), map(sum, zip(*threads))))
        return json.dumps({**_sums, **totals}).encode()


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/truth":
        body = _truth()
    else:
        _mix()
        body = b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
