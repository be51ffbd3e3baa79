"""The error log of a Python process, with the interface of gunicorn's logger: what hooks know as `worker.log`.

Its lines go through `logging.getLogger("gunicorn.error")`, since apps take that logger's handlers and level for their own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .settings import Config


class _WholeLines:
    """For a handler: each record leaves in one write, so that processes may share a file, and nobody has to read it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"  # type: ignore[attr-defined]
        except Exception:
            self.handleError(record)  # type: ignore[attr-defined]
            return
        self.write(text, record.levelno)

    def write(self, text: str, level: int = logging.ERROR) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            try:
                data = data[os.write(self.stream_for(level).fileno(), data) :]
            except (OSError, ValueError):
                return  # nobody reads the log: serving goes on

    def stream_for(self, level: int) -> Any:
        return self.stream  # type: ignore[attr-defined]

    def flush(self) -> None:
        """Nothing is held back."""


class StreamHandler(_WholeLines, logging.StreamHandler):  # type: ignore[type-arg]
    """Into a standard stream."""


class SplitHandler(StreamHandler):
    """Into standard error; what is no warning into standard output."""

    def stream_for(self, level: int) -> Any:
        return self.stream if level >= logging.WARNING else sys.stdout


class FileHandler(_WholeLines, logging.FileHandler):
    """Into a file."""


class JsonFormatter(logging.Formatter):
    """An object a line, with the names of `src/log/json-lines.ts`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "level": record.levelname.lower(),
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z",
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return json.dumps(fields, ensure_ascii=False)


class Logger:
    """Takes messages as the logging module does: `info("%s is here", name)`."""

    LOG_LEVELS: ClassVar[dict[str, int]] = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }
    error_fmt = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
    datefmt = "[%Y-%m-%d %H:%M:%S %z]"

    def __init__(self, cfg: Config) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.propagate = False
        self.cfg = cfg
        self.setup(cfg)

    def setup(self, cfg: Config) -> None:
        """Writes to what the settings `errorlog` and `loglevel` say from now on."""
        self.cfg = cfg
        self.error_log.setLevel(self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO))
        is_json = cfg.log_format == "json"
        formatter = JsonFormatter() if is_json else logging.Formatter(self.error_fmt, self.datefmt)
        self._set_handler(self.error_log, cfg.errorlog, formatter)

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """An error with the traceback of the exception that is being handled."""
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        if isinstance(lvl, str):
            lvl = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        self.error_log.log(lvl, msg, *args, **kwargs)

    def reopen_files(self) -> None:
        """Opens every file of every logger anew, after a log rotation."""
        loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
        for logger in [logging.root, *loggers]:
            for handler in logger.handlers:
                if isinstance(handler, logging.FileHandler) and handler.stream is not None:
                    handler.acquire()
                    try:
                        handler.close()
                        handler.stream = handler._open()
                    finally:
                        handler.release()

    def _set_handler(self, logger: logging.Logger, output: str, formatter: logging.Formatter) -> None:
        for handler in list(logger.handlers):
            if getattr(handler, "_nunicorn", False):
                logger.removeHandler(handler)
                handler.close()
        handler: logging.Handler
        if output == "-":
            handler = SplitHandler(sys.stderr) if self.cfg.log_split else StreamHandler(sys.stderr)
        else:
            handler = FileHandler(output)
        handler._nunicorn = True  # type: ignore[attr-defined]
        handler.setFormatter(formatter)
        logger.addHandler(handler)


class ErrorStream:
    """wsgi.errors: a text stream into the error log (PEP 3333)."""

    encoding = "utf-8"

    def __init__(self, log: Logger) -> None:
        self._logger = log.error_log
        self._as_records = log.cfg.log_format == "json"
        self._rest = ""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("wsgi.errors takes str, not %s" % type(text).__name__)
        if self._as_records:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._logger.error("%s", line)
            return len(text)
        for handler in self._logger.handlers:
            if isinstance(handler, _WholeLines):
                handler.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Every write has already reached the file."""

    def isatty(self) -> bool:
        return False


def redirect_failed_stdio() -> None:
    """Gives a process whose stdout or stderr was closed one that leads nowhere, so that print() cannot break a request."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))
