"""Start of a Python process: a worker, or the mold that forks workers."""

import atexit
import os
import socket
import sys

from .control import Lines


def main():
    # Neither the app nor what it starts need see these.
    address = os.environ.pop("NUNICORN_CONTROL")
    token = os.environ.pop("NUNICORN_TOKEN")
    serial = int(os.environ.pop("NUNICORN_SERIAL"))
    master, config = call_master(address, token, serial)
    if config["role"] == "mold":
        from .mold import Mold

        Mold(master, config, address, token).run()
    else:
        from .worker import Worker

        leave(Worker(master, config).run())


def leave(code):
    """Ends the process, with its exit handlers: what watches the app sends there what it still has."""
    if code == 0:
        sys.exit(0)
    end_at_once(code)


def end_at_once(code):
    """Ends the process with its exit handlers. Threads that the app has started cannot keep it."""
    for step in (atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        try:
            step()
        except BaseException:  # Python 3.9 raises what the last handler has raised, and has printed it
            pass
    os._exit(code)


def call_master(address, token, serial):
    """Connects to the master and says who is there. Returns the connection and the settings the master answers with."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    master = Lines(sock)
    try:
        sock.connect(address)
    except FileNotFoundError:
        sys.stderr.write(
            "Error: %s has been removed, and no new worker can start without it: restart the server,"
            " with --worker-tmp-dir in a folder that nothing clears\n" % os.path.dirname(address)
        )
        sys.stderr.flush()
        os._exit(1)
    except OSError:
        os._exit(1)  # the master is gone
    master.say(op="hello", token=token, serial=serial, pid=os.getpid())
    messages = []
    while not messages:
        messages = master.hear()
        if messages is None:
            os._exit(1)
    return master, messages[0]
