"""Lines in gunicorn's format, to stderr or to the error log. One write each, so that processes may share a file."""

import os
import sys
import time
import traceback

_LEVELS = ["debug", "info", "warning", "error", "critical"]


class Log:
    def __init__(self, path, level):
        """`path` is a file, or "-" for stderr; `level` the least severe level that is written."""
        self._path = path
        self._threshold = _LEVELS.index(level)
        self._fd = 2
        self.reopen()

    def reopen(self):
        if self._path == "-":
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._fd == 2:
            self._fd = fd
        else:
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def log(self, level, message):
        if _LEVELS.index(level) >= self._threshold:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S %z")
            self.write("[%s] [%d] [%s] %s\n" % (stamp, os.getpid(), level.upper(), message))

    def debug(self, message):
        self.log("debug", message)

    def info(self, message):
        self.log("info", message)

    def warning(self, message):
        self.log("warning", message)

    def error(self, message):
        self.log("error", message)

    def exception(self, message):
        """An error with the traceback of the exception that is being handled."""
        self.error("%s\n%s" % (message, traceback.format_exc().rstrip("\n")))

    def write(self, text):
        data = text.encode("utf-8", "backslashreplace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                return  # nobody reads the log: serving goes on


class ErrorStream:
    """wsgi.errors: a text stream into the error log (PEP 3333)."""

    encoding = "utf-8"

    def __init__(self, log):
        self._log = log

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("wsgi.errors takes str, not %s" % type(text).__name__)
        self._log.write(text)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        """Every write has already reached the file."""

    def isatty(self):
        return False


def redirect_failed_stdio():
    """Gives a process whose stdout or stderr was closed one that leads nowhere, so that print() cannot break a request."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))
