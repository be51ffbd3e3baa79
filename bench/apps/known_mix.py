"""Requests of known cost that also measure themselves: processor time, wait for the interpreter's lock, sleep. `/truth` tells.

A request works for LOCKED_MS under the lock, in two halves, and sleeps for WAIT_MS between. What a thread that works loses
beside its processor time it loses to the lock, or to other processes: the kernel counts the latter in schedstat. A sleep that
takes longer than it should waits for the lock too. What threads wait outside the app, a probe finds out.
"""

import json
import os
import random
import threading
import time

LOCKED_S, WAIT_S = (float(os.environ.get(name, "0")) / 1000 for name in ("LOCKED_MS", "WAIT_MS"))
_lock = threading.Lock()
_sums = {"requests": 0, "wall": 0.0, "cpu": 0.0, "cpu_wait": 0.0, "gil_wait": 0.0, "sleep": 0.0, "probes": 0, "probe_wait": 0.0}
_local = threading.local()


def _schedstat():
    try:
        fd = _local.fd
    except AttributeError:
        fd = _local.fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    cpu, wait, _ = os.pread(fd, 100, 0).split()
    return int(cpu) / 1e9, int(wait) / 1e9


def _slack(pause):
    times = []
    for _ in range(20):
        began = time.perf_counter()
        time.sleep(pause)
        times.append(time.perf_counter() - began - pause)
    return sorted(times)[10]


SLACK_S = _slack(WAIT_S) if WAIT_S else 0.0
PROBE_SLACK_S = _slack(0.001)


def _probe():
    """How long one who comes waits for the lock: so do requests, when their thread has read them, and when it has answered."""
    while True:
        time.sleep(random.uniform(0.01, 0.03))
        pause = 0.001
        began = time.perf_counter()
        _, wait = _schedstat()
        time.sleep(pause)
        waited = time.perf_counter() - began - pause
        _, wait_after = _schedstat()
        with _lock:
            _sums["probes"] += 1
            _sums["probe_wait"] += max(0.0, waited - (wait_after - wait) - PROBE_SLACK_S)


def _work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


threading.Thread(target=_probe, daemon=True).start()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/truth":
        with _lock:
            body = json.dumps({**_sums, "pid": os.getpid()}).encode()
    elif environ["PATH_INFO"] == "/hold-lock":
        import ctypes

        ctypes.PyDLL(None).usleep(15_000_000)
        body = b"held"
    else:
        began = time.perf_counter()
        cpu, wait = _schedstat()
        _work(LOCKED_S / 2)
        before_sleep = time.perf_counter()
        time.sleep(WAIT_S)
        slept = time.perf_counter() - before_sleep
        _work(LOCKED_S / 2)
        cpu_after, wait_after = _schedstat()
        wall = time.perf_counter() - began
        asleep = min(slept, WAIT_S + SLACK_S)
        with _lock:
            _sums["requests"] += 1
            _sums["wall"] += wall
            _sums["cpu"] += cpu_after - cpu
            _sums["cpu_wait"] += wait_after - wait
            _sums["sleep"] += asleep
            _sums["gil_wait"] += max(0.0, wall - (cpu_after - cpu) - (wait_after - wait) - asleep)
        body = b"ok\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
