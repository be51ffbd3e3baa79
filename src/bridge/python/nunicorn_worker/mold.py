"""The mold (--preload): imports the app once and forks the workers, so that they share its memory."""

import gc
import os
import select
import signal
import sys
import threading

from .main import call_master, leave
from .worker import Setup, Worker


class Mold:
    def __init__(self, master, config, address, token):
        self._master = master
        self._config = config
        self._address = address
        self._token = token

    def run(self):
        """Forks a worker for each `fork` of the master and tells how each ended. Ends with the master."""
        setup = Setup(self._config)
        setup.become_user()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        code = setup.load_app()
        if code:
            leave(code)
        if threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
            setup.log.warning(
                "--preload: the app started threads at import, which forked workers will not have: " + names
            )
        wakeup, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # What is there now is never garbage: the collector need not touch, and so copy, its pages in the workers.
        gc.collect()
        gc.freeze()
        self._master.say(op="ready")
        while True:
            readable, _, _ = select.select([self._master.sock, wakeup], [], [])
            if wakeup in readable:
                os.read(wakeup, 4096)
                self._reap()
            if self._master.sock in readable:
                messages = self._master.hear()
                if messages is None or any(message["op"] == "leave" for message in messages):
                    os._exit(0)
                for message in messages:
                    self._fork(message["serial"], setup, (wakeup, wake))

    def _fork(self, serial, setup, descriptors):
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._master.say(op="forked", serial=serial, pid=pid)
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for descriptor in descriptors:
            os.close(descriptor)
        self._master.sock.close()
        master, config = call_master(self._address, self._token, serial)
        leave(Worker(master, config, setup).run())

    def _reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code, signal_number = (
                (None, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), None)
            )
            name = signal.Signals(signal_number).name if signal_number else None
            self._master.say(op="exited", pid=pid, code=code, signal=name)
