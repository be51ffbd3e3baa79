"""The life of a worker: boot, serve, leave."""

import _thread
import faulthandler
import logging
import mmap
import os
import select
import signal
import sys
import threading
import traceback
from _thread import allocate_lock, start_new_thread
from socket import AF_UNIX, SOCK_STREAM, socket

from . import hooks, metrics
from .app import AppLoadError, advice_on, find_app, prepare_path
from .control import Control
from .log import ErrorStream, Logger, redirect_failed_stdio
from .main import leave
from .process import die_with_parent, drop_privileges, set_title
from .settings import load as load_settings
from .slot import Slot
from .views import AppView, ServerView, WorkerView
from .wsgi import FileWrapper, ReadFileWrapper

# Sent to a process that does not answer: see src/bridge/stacks.ts.
STACKS_SIGNAL = signal.SIGIO
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Exit codes that the master knows, as gunicorn's: the app could not be imported; its name leads nowhere.
EXIT_BOOT_ERROR = 3
EXIT_APP_LOAD_ERROR = 4

_stacks = -1  # the descriptor that stacks are written to


def write_stacks_to(path):
    """Stacks on demand, also while C code holds the interpreter's lock, and where a crash happened."""
    global _stacks
    before, _stacks = _stacks, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    # A descriptor, for nobody closes a file that faulthandler has: with -X dev its end would be a ResourceWarning.
    faulthandler.register(STACKS_SIGNAL, file=_stacks, all_threads=True)
    if before >= 0:
        os.close(before)  # of the mold that has forked this process
    if not faulthandler.is_enabled():
        faulthandler.enable()


def _logger(cfg):
    # As gunicorn: a logger of one's own sends what it likes itself.
    if not cfg.statsd_host or cfg.logger_class is not Logger:
        return cfg.logger_class(cfg)
    from .statsd import Statsd

    return Statsd(cfg)


class Setup:
    """What a worker and the mold have in common before the app is imported: settings, log, and what hooks are given."""

    def __init__(self, process):
        """`process`: what the master answered to the process's call. Exits with 3 if the configuration file fails."""
        redirect_failed_stdio()
        set_title(process["title"])
        sys.argv[:] = process["argv"]
        try:
            self.cfg = load_settings(process)
        except BaseException:
            traceback.print_exc()
            os._exit(EXIT_BOOT_ERROR)
        os.environ["SERVER_SOFTWARE"] = process["software"]
        prepare_path(process)
        try:
            self.log = _logger(self.cfg)
        except RuntimeError as error:
            sys.stderr.write("\nError: %s\n" % error)
            os._exit(EXIT_BOOT_ERROR)
        self.uri = process["app"]
        self._reload = process["reload"]
        self.app = AppView(process["app"], self.cfg, lambda: find_app(process["app"], process["settings"]))
        self.server = ServerView(self.cfg, self.log, process["master_pid"], self.app)
        self._access_logger = _access_logger()

    def check_access_logger(self):
        """To be called when the app and the hooks have had their say."""
        if getattr(self.log, "access_log_enabled", False) and self._access_logger != _access_logger():
            self.log.warning(
                "The app, or a hook, has changed the logger gunicorn.access: the access log stays as it is, since the front writes it. "
                "What gunicorn.conf.py sets outside of its hooks, by logconfig_dict or by a logger_class has an effect"
            )

    def load_app(self, master):
        """Imports the app. If there is none to be had the log says why; returns the exit code then, else 0."""
        if self.cfg.spew:
            from . import spew

            spew.install()
        try:
            self.app.wsgi()
        except AppLoadError as error:
            self._tell_files(master, error)
            self.log.error(str(error))
            return EXIT_APP_LOAD_ERROR
        except BaseException as error:  # an app that calls sys.exit() at import fails to boot all the same
            self._tell_files(master, error)
            self.log.exception("Exception in worker process")
            advice = advice_on(error, self.uri)
            if advice:
                self.log.error(advice)
            return EXIT_BOOT_ERROR
        return 0

    def _tell_files(self, master, error):
        if self._reload:
            from .files_in_use import tell_files_of_failure

            tell_files_of_failure(master, error)


def _access_logger():
    logger = logging.getLogger("gunicorn.access")
    return list(logger.filters), list(logger.handlers), logger.level


def has_greenlets():
    """Whether the app has put greenlets in the place of threads.

    What the server itself needs of threads and sockets has been imported by name before, so that it is not replaced.
    """
    return _thread.start_new_thread is not start_new_thread


def _let_greenlets_run(descriptor):
    """They run in the main thread, and only while it waits in a function that has been replaced as well."""
    select.select([descriptor], [], [])


def become_user(process):
    """Gives up the rights of the start, for good. From then on the process's stacks can be had."""
    drop_privileges(process["uid"], process["gid"], process["settings"]["initgroups"])
    if not process["forked"]:  # a worker outlives its mold: a new one replaces it first
        die_with_parent()
    write_stacks_to(process["stacks_path"])


class Worker:
    def __init__(self, master, process, setup=None, view=None):
        """`setup` and `view`: the mold's, if it has forked this process."""
        self._master = master
        self._process = process
        self._setup = setup or Setup(process)
        if setup is not None:
            set_title(process["title"])
        self._cfg, self._log = self._setup.cfg, self._setup.log
        self._view = view or WorkerView(self._setup.server, process["age"], process["number"])
        self._pid = self._view.pid = os.getpid()
        self._told_to_leave = False
        self._no_pipes_said = False
        # Taken, and kept, by the thread that brings this process to its end: the main thread, or the control thread if that is stuck.
        self._ending = allocate_lock()
        self._view.ask_to_leave = lambda: self._ask_to_leave("asked to leave by a hook")

    def run(self):
        """Serves until the master says leave. Returns the exit code."""
        try:
            return self._boot() or self._serve()
        finally:
            if not self._ending.acquire(blocking=False):
                threading.Event().wait()  # it was stuck, and the control thread is about to end the process
            self._exit()

    def _exit(self):
        self._log.info("Worker exiting (pid: %d)", os.getpid())
        try:
            self._cfg.worker_exit(self._setup.server, self._view)
        except Exception:
            self._log.warning("Exception during worker exit:\n%s", traceback.format_exc())

    def _boot(self):
        log, view = self._log, self._view
        log.info("Booting worker with pid: %d", os.getpid())
        for number in _ENDS:
            signal.signal(number, self._signalled)
        os.register_at_fork(after_in_child=self._be_signalled)
        # Who has rotated logs may send it to every process of a server. The master, which hears it too, has all reopen them.
        signal.signal(signal.SIGUSR1, lambda *_: None)
        if any(hook is not hooks.nothing for hook in (self._cfg.worker_abort, self._cfg.worker_exit)):
            signal.signal(signal.SIGABRT, self._aborted)
        try:
            self._cfg.post_fork(self._setup.server, view)
            become_user(self._process)
            code = self._setup.load_app(self._master)
            if code:
                return code
            self._master.say(op="imported")
            view.wsgi = self._setup.app.callable
            self._cfg.post_worker_init(view)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        except Exception:
            log.exception("Exception in worker process")
            return EXIT_BOOT_ERROR
        view.booted = True
        if self._process["age"] == 1:  # once is enough
            self._setup.check_access_logger()
        return 0

    def _serve(self):
        log, process, app = self._log, self._process, self._view.wsgi
        base_environ = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": process["software"],
            "wsgi.version": (1, 0),
            "wsgi.errors": ErrorStream(self._cfg),
            "wsgi.multithread": process["threads"] > 1,
            "wsgi.multiprocess": process["workers"] > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper if self._cfg.sendfile else ReadFileWrapper,
            "wsgi.input_terminated": True,
        }
        if process["environ_names"]:
            from .environ_atoms import telling_environ

            app = telling_environ(app, process["environ_names"])
        if any(getattr(self._cfg, name) is not hooks.nothing for name in hooks.SEE_REQUESTS):
            from .request_hooks import around_request

            app = around_request(app, self._view)
        try:
            begun = self._share_begun(process["begun_path"], process["threads"])
        except OSError as error:
            log.critical("%s could not be written: %s", process["begun_path"], error)
            return EXIT_BOOT_ERROR
        wait = None
        if has_greenlets():
            if process["threads"] > 1:
                log.error(
                    "The application, or the configuration file, has put greenlets in the place of threads"
                    " (gevent's monkey.patch_all(), or eventlet's): take that out of it, or run it with one thread"
                )
                return EXIT_BOOT_ERROR
            wait = _let_greenlets_run
        slots = [
            Slot(number, app, base_environ, begun, log, self._ask_to_leave, wait) for number in range(process["threads"])
        ]
        listener = socket(AF_UNIX, SOCK_STREAM)
        listener.bind(process["socket_path"])
        listener.listen(process["threads"] + 8)
        control = Control(self._master, listener, bytes.fromhex(process["token"]), slots, self)
        os.register_at_fork(after_in_child=lambda: self._leave_to_parent(slots, listener))
        # The app's only thread is the main thread, so that apps that use signal.alarm() work.
        threads = [
            threading.Thread(target=slot.serve_forever, name="nunicorn-thread-%d" % (slot.number + 1))
            for slot in (slots if len(slots) > 1 else [])
        ]
        try:
            for thread in threads:
                thread.start()
            control.start()
        except RuntimeError as error:
            log.critical("A thread could not be started: %s", error)
            return EXIT_BOOT_ERROR
        if process["reload"]:
            from .files_in_use import tell_files

            tell_files(self._master)
        self._master.say(op="ready")
        if process["metrics"]:
            metrics.when_used(self.tell_metrics)
        if threads:
            self._tell_of_threads([thread.native_id for thread in threads])
            control.left.wait()
            for thread in threads:
                thread.join()
        else:
            self._tell_of_threads([threading.get_native_id()])
            slots[0].serve_forever()
        return 0

    def _tell_of_threads(self, ids):
        if self._process["metrics"]:
            from .gil import find_gil

            self._master.say(op="threads", ids=ids, gil=None if has_greenlets() else find_gil())

    # ---- called by the control thread

    def tell_metrics(self):
        """The app's own metrics, if it has any. The master asks those who have told of some before."""
        found = metrics.report()
        if found:
            self._master.say(op="metrics", metrics=found)

    def leaving(self, quick):
        """The master wants the worker to go; `quick`: at once."""
        self._told_to_leave = True
        self._view.ask_to_leave = None
        self._view.alive = False
        # A handler that the app has put in the place of ours is how it hears of its end: gunicorn's master sends the signal.
        number = signal.SIGQUIT if quick else signal.SIGTERM
        handler = signal.getsignal(number)
        if callable(handler) and handler != self._signalled:
            os.kill(os.getpid(), number)
        elif quick:
            self._interrupted()

    def abort(self, stacks):
        """The master does not wait any longer. The main thread may be what is stuck, so that the end is this thread's."""
        self._log.error("Worker (pid:%d) does not leave by itself and is ended:\n%s", os.getpid(), stacks)
        self._aborted()

    def reopen_logs(self):
        self._log.reopen_files()

    def no_pipes(self, error):
        if not self._no_pipes_said:
            self._no_pipes_said = True
            self._log.error("A thread could not be connected to its front, and waits until it can be: %s", error)

    def control_failed(self):
        self._log.exception("Error in the control thread")

    # ----

    def _be_signalled(self):
        """In a process that the app forks: multiprocessing ends it by a signal, and waits until it has ended."""
        for number in _ENDS:
            if signal.getsignal(number) == self._signalled:
                signal.signal(number, signal.SIG_DFL)

    def _signalled(self, number, _frame):
        if os.getpid() != self._pid:  # it came before `_be_signalled`, or by way of a handler of the app's
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        # The master knows already where the app's own handler calls this one, see `leaving`.
        if not self._told_to_leave:
            self._ask_to_leave("sent " + signal.Signals(number).name)
        self._view.ask_to_leave = None
        self._view.alive = False
        if number != signal.SIGTERM:
            self._interrupted()

    def _interrupted(self):
        try:
            self._cfg.worker_int(self._view)
        except Exception:
            self._log.exception("Exception in worker_int hook")

    def _aborted(self, *_):
        if not self._ending.acquire(blocking=False):
            return  # somebody is at it, and has what time is left
        self._view.ask_to_leave = None
        self._view.alive = False
        try:
            self._cfg.worker_abort(self._view)
        except Exception:
            self._log.exception("Exception in worker_abort hook")
        finally:
            self._exit()
            leave(1)

    def _ask_to_leave(self, why):
        self._master.say(op="leaving", why=why)

    def _leave_to_parent(self, slots, listener):
        """In a process that the app forks: our descriptors are the parent's alone."""
        self._master.sock.close()
        listener.close()
        for slot in slots:
            slot.abandon()

    @staticmethod
    def _share_begun(path, threads):
        """A word for each slot in a file that outlives this process: the front reads there what had begun."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(fd, "r+b") as file:
            # Written, not only made longer: where the disk is full, a store to a hole is the end of the process (SIGBUS).
            file.write(bytes(8 * threads))
            file.flush()
            return memoryview(mmap.mmap(fd, 8 * threads)).cast("Q")
