"""The life of a worker: boot, serve, leave."""

import faulthandler
import mmap
import os
import signal
import socket
import sys
import threading

from .app import AppLoadError, load_app, prepare_path
from .control import Control
from .log import ErrorStream, Log, redirect_failed_stdio
from .process import die_with_parent, drop_privileges, set_title
from .slot import Slot
from .wsgi import FileWrapper

# A front sends it to a worker that does not answer: see src/front/front.ts.
STACKS_SIGNAL = signal.SIGIO
# Exit codes that the master knows, as gunicorn's: the app could not be imported; its name leads nowhere.
EXIT_BOOT_ERROR = 3
EXIT_APP_LOAD_ERROR = 4


def set_up_process(config):
    """What a worker and the mold have in common before the app is imported. Returns the log."""
    redirect_failed_stdio()
    set_title(config["title"])
    log = Log(config["errorlog"], config["loglevel"])
    os.umask(config["umask"])
    drop_privileges(config["uid"], config["gid"])
    if not config["preloaded"]:  # a worker outlives its mold: a new one replaces it first
        die_with_parent()
    os.environ["SERVER_SOFTWARE"] = config["software"]
    sys.argv[:] = config["argv"]
    prepare_path(config)
    return log


def load_or_exit(config, log):
    """The app. If there is none to be had the log says why, and the process exits with 3 or 4."""
    try:
        return load_app(config["app"])
    except AppLoadError as error:
        log.error(str(error))
        sys.stderr.flush()
        os._exit(EXIT_APP_LOAD_ERROR)
    except BaseException:  # an app that calls sys.exit() at import fails to boot all the same
        log.exception("Exception in worker process")
        sys.stderr.flush()
        os._exit(EXIT_BOOT_ERROR)


class Worker:
    def __init__(self, master, config):
        self._master = master
        self._config = config

    def run(self, app=None):
        """Serves until the master says leave, then exits. `app` is the mold's; without one it is imported here."""
        config = self._config
        log = set_up_process(config)
        # Without the interpreter's lock: stacks on demand while C code holds it, and where a crash happened.
        stacks = open(os.open(config["stacks_path"], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w")
        faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True)
        if not faulthandler.is_enabled():
            faulthandler.enable()
        log.info("Booting worker with pid: %d" % os.getpid())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._ask_to_leave)
        if app is None:
            app = load_or_exit(config, log)
        base_environ = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": config["software"],
            "wsgi.version": (1, 0),
            "wsgi.errors": ErrorStream(log),
            "wsgi.multithread": config["threads"] > 1,
            "wsgi.multiprocess": config["workers"] > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        begun = self._share_begun(config["begun_path"], config["threads"])
        slots = [Slot(number, app, base_environ, begun, log) for number in range(config["threads"])]
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(config["socket_path"])
        listener.listen(config["threads"] + 8)
        control = Control(self._master, listener, bytes.fromhex(config["token"]), slots, log)
        os.register_at_fork(after_in_child=lambda: self._leave_to_parent(slots, listener))
        control.start()
        self._master.say(op="ready")
        if len(slots) == 1:
            # The app's only thread is the main thread, so that apps that use signal.alarm() work.
            slots[0].serve_forever()
        else:
            threads = [
                threading.Thread(target=slot.serve_forever, name="nunicorn-thread-%d" % (slot.number + 1))
                for slot in slots
            ]
            for thread in threads:
                thread.start()
            control.left.wait()
            for thread in threads:
                thread.join()
        log.info("Worker exiting (pid: %d)" % os.getpid())

    def _ask_to_leave(self, number, _frame):
        self._master.say(op="leaving", signal=signal.Signals(number).name)

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
        try:
            os.ftruncate(fd, 8 * threads)
            return memoryview(mmap.mmap(fd, 8 * threads)).cast("Q")
        finally:
            os.close(fd)
