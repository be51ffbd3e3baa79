"""The mold: a Python process that forks the workers, so that they share its memory and its layout.

With --preload it has imported the app. Where the configuration sets hooks of the master they run here, as in gunicorn's
master: what they leave behind is there in each worker.
"""

import gc
import os
import select
import signal
import sys
import threading

from .hooks import nothing
from .main import call_master, end_at_once, leave
from .process import die_with_parent
from .settings import load as load_settings
from .views import ListenerView, WorkerView
from .worker import Setup, Worker, become_user, has_greenlets, write_stacks_to

# Exit codes as gunicorn's: a hook of the start failed; one failed while the server ran.
_EXIT_AT_START = 1
_EXIT_LATER = 255
_AT_START = ("on_starting", "when_ready", "on_exit")
# What the master has a meaning for. Apps and scripts send it to a worker's parent, which with gunicorn is the master.
_FOR_MASTER = tuple(getattr(signal, "SIG" + name) for name in "TERM INT QUIT HUP USR1 USR2 TTIN TTOU WINCH".split())


class HookFailed(Exception):
    """The server is to end with `code`."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Mold:
    def __init__(self, master, process, address, token):
        self._master = master
        self._process = process
        self._address = address
        self._token = token
        self._pid = os.getpid()
        self._setup = Setup(process)
        self._server = self._setup.server
        self._set_listeners(process["listeners"])
        self._exit_code = 0

    def run(self):
        """Forks a worker for each `fork` of the master and tells how each ended. Ends with the master."""
        server = self._server
        if self._process["master_hooks"]:
            die_with_parent()  # with the rights of the start, which hooks have in gunicorn too; the workers give them up
            write_stacks_to(self._process["stacks_path"])
        else:
            become_user(self._process)
        self._hear_signals()
        try:
            server.num_workers = self._process["workers"]
            self._call("nworkers_changed", server.num_workers, None, code=_EXIT_AT_START)
            if self._process["preload"]:
                self._import_app()
            self._call("on_starting")
        except HookFailed as failed:
            leave(failed.code)
        self._hear_signals()  # whatever handlers the app has set at import
        self._wakeup, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        # What is there now is never garbage: the collector need not touch, and so copy, its pages in the workers.
        gc.collect()
        gc.freeze()
        self._master.say(op="ready")
        waiting = select.poll()  # select() knows no descriptors from 1024 on, and the import may have opened as many
        for source in (self._master.sock, self._wakeup):
            waiting.register(source, select.POLLIN)
        while True:
            readable = [fd for fd, _ in waiting.poll()]
            if self._wakeup in readable:
                os.read(self._wakeup, 4096)
                self._reap()
            if self._master.sock.fileno() in readable:
                messages = self._master.hear()
                if messages is None:
                    os._exit(0)
                for message in messages:
                    self._act(message)

    def _hear_signals(self):
        for number in _FOR_MASTER:
            signal.signal(number, self._pass_on)

    def _pass_on(self, number, _frame):
        # Not blocked for the fork instead: threads that agents start anew in the child would keep it so, and all they start.
        if os.getpid() != self._pid:
            if number != signal.SIGUSR1:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        try:
            os.kill(self._process["master_pid"], number)
        except ProcessLookupError:
            pass  # and so will be this process
        except PermissionError:
            self._setup.log.info("Signal %s is for the master, which another user runs", _name(number))

    def _import_app(self):
        # What wraps the command, as opentelemetry-instrument does, has started its threads before, and knows of forks.
        before = threading.enumerate()
        code = self._setup.load_app(self._master)
        if code:
            leave(code)
        started = [thread for thread in threading.enumerate() if thread not in before]
        if started and not has_greenlets():  # a fork has these
            names = ", ".join(thread.name for thread in started)
            self._setup.log.warning(
                "--preload: the import has started threads; a forked worker has them only if they are started again there: %s",
                names,
            )

    def _act(self, message):
        op = message["op"]
        if op == "leave":
            if self._process["master_hooks"]:
                self._master.sock.detach()  # the end of the process closes it: with -X dev that would be a ResourceWarning
                leave(self._exit_code)  # what hooks have registered with atexit is run
            if self._process["preload"]:
                end_at_once(0)  # what the app has registered is run
            self._flush()
            os._exit(0)
        elif op == "reopen":
            self._setup.log.reopen_files()
        elif op == "fork":
            try:
                self._fork(message["serial"], message["number"])
            except HookFailed as failed:
                self._master.say(op="hook-failed", hook="pre_fork", code=failed.code)
        elif op == "hook":
            code = None
            try:
                self._hook(message)
            except HookFailed as failed:
                code = failed.code
                if message["hook"] == "on_exit":
                    self._exit_code = code
            self._flush()
            self._master.say(op="hooked", code=code)

    def _hook(self, message):
        name, server = message["hook"], self._server
        if name == "when_ready":
            self._set_listeners(message["listeners"])
        elif name == "nworkers_changed":
            old, server.num_workers = server.num_workers, message["workers"]
            self._call(name, server.num_workers, old)
            return
        elif name == "on_reload":
            self._reload(message["process"])
        elif name == "on_exit":
            server.LISTENERS.clear()
        self._call(name)

    def _set_listeners(self, listeners):
        self._server.LISTENERS[:] = [ListenerView(one["url"], one["address"]) for one in listeners]

    def _call(self, name, *arguments, code=None):
        """Runs a hook of the server. Raises HookFailed with the exit code that an error in it means."""
        try:
            getattr(self._setup.cfg, name)(self._server, *arguments)
        except SystemExit as error:
            raise HookFailed(error.code if isinstance(error.code, int) else 0 if error.code is None else 1) from None
        except BaseException:
            self._setup.log.exception("Exception in %s hook", name)
            raise HookFailed(code or (_EXIT_AT_START if name in _AT_START else _EXIT_LATER)) from None

    def _reload(self, process):
        """Runs the configuration file again, for the workers that are forked from now on. The app stays as it is."""
        for entry in self._setup.cfg.raw_env:
            os.environ.pop(entry.split("=", 1)[0], None)
        try:
            cfg = load_settings(process)
            os.chdir(process["chdir"])
            getattr(self._setup.log, "setup", nothing)(cfg)  # a logger_class that descends from no other may have none
        except BaseException:
            self._setup.log.exception("The configuration file failed: the hooks stay as they were")
            return
        self._process = process
        self._set_listeners(process["listeners"])
        self._setup.cfg = self._server.cfg = self._setup.app.cfg = cfg
        old, self._server.num_workers = self._server.num_workers, process["workers"]
        self._call("nworkers_changed", process["workers"], old)

    def _fork(self, serial, number):
        self._server.worker_age = serial  # also of workers that an earlier mold has forked
        view = WorkerView(self._server, serial, number)
        try:
            self._setup.cfg.pre_fork(self._server, view)
        except SystemExit as error:
            raise HookFailed(error.code if isinstance(error.code, int) else 1) from None
        except BaseException:
            self._setup.log.exception("Exception in pre_fork hook")
            raise HookFailed(_EXIT_LATER) from None
        self._flush()
        try:
            pid = os.fork()
        except OSError as error:
            self._setup.log.error("Worker %d could not be forked: %s", number, error)
            self._master.say(op="not-forked", serial=serial)
            return
        if pid:
            view.pid = pid
            self._server.WORKERS[pid] = view
            self._master.say(op="forked", serial=serial, pid=pid)
            return
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_FOR_MASTER):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the worker has a handler for it
        os.setsid()
        os.close(self._wakeup)
        os.close(self._wake)
        self._master.sock.close()
        master, process = call_master(self._address, self._token, serial)
        leave(Worker(master, process, self._setup, view).run())

    def _reap(self):
        # Children that hooks or the app have started are theirs.
        for pid, view in list(self._server.WORKERS.items()):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0  # a hook has taken it
            if ended == 0:
                continue
            del self._server.WORKERS[pid]
            killed = os.WIFSIGNALED(status)
            self._master.say(
                op="exited",
                pid=pid,
                code=None if killed else os.WEXITSTATUS(status),
                signal=_name(os.WTERMSIG(status)) if killed else None,
            )
            if self._setup.cfg.child_exit is not nothing:
                self._child_exit(view)

    def _child_exit(self, view):
        try:
            self._setup.cfg.child_exit(self._server, view)
        except Exception:
            self._setup.log.exception("Exception in child_exit hook")
            self._master.say(op="hook-failed", hook="child_exit", code=_EXIT_LATER)
        self._flush()

    @staticmethod
    def _flush():
        sys.stdout.flush()
        sys.stderr.flush()


def _name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # the real-time signals between the first and the last have no names
