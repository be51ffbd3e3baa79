"""Requests of known cost, in ms from the environment: LOCKED_MS of work under the GIL, FREE_MS of hashing that releases it, WAIT_MS."""

import hashlib
import os
import time

LOCKED_S, FREE_S, WAIT_S = (float(os.environ.get(name, "0")) / 1000 for name in ("LOCKED_MS", "FREE_MS", "WAIT_MS"))
BLOCK = bytes(64 * 1024)
BODY = b"ok\n"


def application(environ, start_response):
    work(LOCKED_S / 2)
    if WAIT_S:
        time.sleep(WAIT_S)
    hash_for(FREE_S)
    work(LOCKED_S / 2)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def work(seconds):
    """Spins on the CPU time of this thread: what others do does not shorten it."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def hash_for(seconds):
    """hashlib releases the GIL for data above 2047 bytes."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(BLOCK)
