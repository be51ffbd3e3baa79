"""What the faults are tried on.

Each request that is run leaves a line as it begins: its query string, the number that the front has given it, its thread.
"""

import os
import threading
import time

time.sleep(float(os.environ.get("BOOT_SECONDS", "0")))
LEAK_BYTES = int(os.environ.get("LEAK_BYTES", "0"))
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "0"))
leaked = []
ran = []


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["QUERY_STRING"]:
        if not ran or ran[0] != os.getpid():
            ran[:] = [os.getpid(), open(os.path.join(os.environ["HOME"], "ran.%d" % os.getpid()), "ab", buffering=0)]
        # Only the function that the worker hands in knows the number: nothing that an app is meant to see.
        number = environ["nunicorn.extend_deadline"].__self__.id
        ran[1].write(b"%s %d %d\n" % (environ["QUERY_STRING"].encode(), number, threading.get_ident()))
    if LEAK_BYTES:
        leaked.append(b"x" * LEAK_BYTES)
    time.sleep(PAUSE_SECONDS)
    answer = b"%d" % len(body)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
