"""What PID 1 of a container has to do and Node cannot: reap orphans. Runs the command as its child, passes signals on to it."""

import ctypes
import os
import signal
import sys

_PR_SET_CHILD_SUBREAPER = 36
_PASSED = [
    getattr(signal, "SIG" + name)
    for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "TTIN", "TTOU")
]


def run(command):
    """Returns the exit code of `command`; 128 and the number of the signal that ended it."""
    # Orphans of all that the command starts become children of this process.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    waited = [*_PASSED, signal.SIGCHLD]
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = os.posix_spawn(command[0], command, os.environ, setsigmask=[])
    while True:
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
