"""`/hold-lock` keeps the interpreter's lock in C for 20 s: nothing moves in the worker meanwhile."""

import ctypes


def application(environ, start_response):
    if environ["PATH_INFO"] == "/hold-lock":
        ctypes.PyDLL(None).usleep(20_000_000)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
