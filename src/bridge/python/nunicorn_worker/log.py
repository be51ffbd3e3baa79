"""The error log of a Python process, with the interface of gunicorn's logger: what hooks know as `worker.log`.

Its lines go through `logging.getLogger("gunicorn.error")`, since apps take that logger's handlers and level for their own.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import stat
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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


def _opener(cfg: Config, mode: int = 0o666) -> Callable[[str, int], int]:
    """Opens the log of the user that the workers run as: while this process is still root, by no link that is not root's."""

    def opened(path: str, flags: int) -> int:
        if os.geteuid() == 0 and cfg.uid and not _is_link_of_root(path):
            flags |= os.O_NOFOLLOW
        return os.open(path, flags, mode)

    return opened


def _is_link_of_root(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode) and found.st_uid == 0


class FileHandler(_WholeLines, logging.FileHandler):
    """Into a file, which is opened for its first line if `delay` is set."""

    def __init__(self, path: str, cfg: Config, delay: bool) -> None:
        self._opener = _opener(cfg)
        super().__init__(path, encoding="utf-8", delay=delay)

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=self._opener)

    def stream_for(self, level: int) -> Any:
        if self.stream is None:
            self.stream = self._open()
        return self.stream


class JsonFormatter(logging.Formatter):
    """An object a line, with the names of `src/log/json-lines.ts`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "level": record.levelname.lower(),
            "time": _iso_time(record.created),
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return json.dumps(fields, ensure_ascii=False)


def _iso_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def _access_json(resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> str:
    """The line of a request as `src/log/access-json.ts` writes it; what is not known is left out."""
    headers = {name.lower(): value for name, value in req.headers}
    fields = {
        "level": "info",
        "time": _iso_time(time.time()),
        "remote_address": environ["REMOTE_ADDR"] or None,
        "user": _basic_user(environ.get("HTTP_AUTHORIZATION", "")),
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"] or None,
        "protocol": environ["SERVER_PROTOCOL"],
        "host": headers.get("host"),
        "status": resp.status_code,
        "bytes": resp.sent,
        "duration_ms": request_time / timedelta(milliseconds=1),
        "referer": headers.get("referer"),
        "user_agent": headers.get("user-agent"),
        "pid": resp.pid or None,
        "worker": resp.worker or None,
        "thread": resp.thread or None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"))


# RFC 5424, 6.2.1; `security` is an old name of auth.
_FACILITIES = {
    name: code for code, name in enumerate("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split())
}
_FACILITIES.update({"local%d" % number: 16 + number for number in range(8)}, security=4)

# What logconfig_dict and its kin are merged over, key by key at the top, as in gunicorn.
LOGCONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": {
            "level": "INFO",
            "handlers": ["error_console"],
            "propagate": True,
            "qualname": "gunicorn.error",
        },
        "gunicorn.access": {"level": "INFO", "handlers": ["console"], "propagate": True, "qualname": "gunicorn.access"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"},
    },
    "formatters": {
        "generic": {
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
            "class": "logging.Formatter",
        }
    },
}


class SafeAtoms(dict):  # type: ignore[type-arg]
    """The atoms of a line; those that are not there read `-`. Escaped, so that no client can end a quoted part or a line."""

    def __init__(self, atoms: dict[str, Any]) -> None:
        super().__init__((name, _escape(value) if isinstance(value, str) else value) for name, value in atoms.items())

    def __getitem__(self, name: str) -> Any:
        return self.get(name.lower() if name.startswith("{") else name, "-")


def _escape(text: str) -> str:
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        "\\" + character
        if character in '"\\'
        else character
        if character.isprintable()
        else "".join("\\x%02x" % byte for byte in character.encode("utf-8", "surrogatepass"))
        for character in text
    )


class Logger:
    """Takes messages as the logging module does: `info("%s is here", name)`."""

    LOG_LEVELS: ClassVar[dict[str, int]] = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }
    loglevel = logging.INFO
    error_fmt = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
    datefmt = "[%Y-%m-%d %H:%M:%S %z]"

    access_fmt = "%(message)s"
    syslog_fmt = "[%(process)d] %(message)s"
    atoms_wrapper_class = SafeAtoms

    def __init__(self, cfg: Config) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.propagate = False
        self.access_log = logging.getLogger("gunicorn.access")
        self.access_log.propagate = False
        self.cfg = cfg
        self.setup(cfg)

    def setup(self, cfg: Config) -> None:
        """Writes to what the settings say from now on. Raises RuntimeError for what cannot be done."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)
        self._capture_output()
        is_json = cfg.log_format == "json"
        formatter = JsonFormatter() if is_json else logging.Formatter(self.error_fmt, self.datefmt)
        for log in (self.error_log, self.access_log):
            for handler in [each for each in log.handlers if getattr(each, "_gunicorn", False)]:
                log.removeHandler(handler)
                handler.close()
        self._set_handler(self.error_log, cfg.errorlog, formatter, sys.stderr)
        if cfg.accesslog is not None:
            self._set_handler(self.access_log, cfg.accesslog, logging.Formatter(self.access_fmt), sys.stdout)
        if cfg.syslog:
            self._add_syslog(self.error_log, "error")
            if not cfg.disable_redirect_access_to_syslog:
                self._add_syslog(self.access_log, "access")
        self._configure_logging()

    def _capture_output(self) -> None:
        if not self.cfg.capture_output or self.cfg.errorlog == "-":
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        fd = _opener(self.cfg, 0o644)(self.cfg.errorlog, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)

    def _configure_logging(self) -> None:
        cfg = self.cfg
        if not (cfg.logconfig_dict or cfg.logconfig_json or cfg.logconfig):
            return
        from logging.config import dictConfig, fileConfig

        try:
            if cfg.logconfig_dict:
                dictConfig({**LOGCONFIG, **cfg.logconfig_dict})
            elif cfg.logconfig_json:
                with open(cfg.logconfig_json) as file:
                    dictConfig({**LOGCONFIG, **json.load(file)})
            else:
                if not os.path.exists(cfg.logconfig):
                    raise ValueError("the file is not there")
                defaults = {"__file__": cfg.logconfig, "here": os.path.dirname(cfg.logconfig)}
                fileConfig(cfg.logconfig, defaults=defaults, disable_existing_loggers=False)
        except (AttributeError, ImportError, OSError, TypeError, ValueError, KeyError) as error:
            name = "logconfig_dict" if cfg.logconfig_dict else cfg.logconfig_json or cfg.logconfig
            raise RuntimeError("the configuration of logging (%s) cannot be used: %s" % (name, error)) from error

    def _add_syslog(self, logger: logging.Logger, kind: str) -> None:
        from logging.handlers import SysLogHandler

        cfg = self.cfg
        facility = _FACILITIES.get(cfg.syslog_facility.lower())
        if facility is None:
            raise RuntimeError("syslog_facility: unknown facility %r" % cfg.syslog_facility)
        address, kind_of_socket = _syslog_address(cfg.syslog_addr)
        try:
            handler = SysLogHandler(address=address, facility=facility, socktype=kind_of_socket)
        except OSError as error:
            raise RuntimeError("syslog cannot be reached at %s: %s" % (cfg.syslog_addr, error)) from error
        prefix = "gunicorn.%s.%s" % (cfg.syslog_prefix or cfg.proc_name.replace(":", "."), kind)
        handler.setFormatter(logging.Formatter("%s: %s" % (prefix.replace("%", "%%"), self.syslog_fmt)))
        handler._gunicorn = True  # type: ignore[attr-defined]
        logger.addHandler(handler)

    @property
    def access_log_enabled(self) -> bool:
        cfg = self.cfg
        syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
        return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or syslog)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Writes the line of a request."""
        if not self.access_log_enabled:
            return
        try:
            if self.cfg.access_log_format == "json":
                self.access_log.info("%s", _access_json(resp, req, environ, request_time))
                return
            atoms = self.atoms_wrapper_class(self.atoms(resp, req, environ, request_time))
            self.access_log.info(self.cfg.access_log_format, atoms)
        except Exception:
            self.exception("Error in the access log")

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> dict[str, Any]:
        """What the access log's format can name."""
        us = int(request_time / timedelta(microseconds=1))
        atoms = {
            "h": environ.get("REMOTE_ADDR", "-"),
            "l": "-",
            "u": self._get_user(environ) or "-",
            "t": self.now(),
            "r": "%s %s %s" % (environ["REQUEST_METHOD"], environ["RAW_URI"], environ["SERVER_PROTOCOL"]),
            "s": str(resp.status).split(None, 1)[0],
            "m": environ["REQUEST_METHOD"],
            "U": environ["PATH_INFO"],
            "q": environ["QUERY_STRING"],
            "H": environ["SERVER_PROTOCOL"],
            "b": "-" if resp.sent is None else str(resp.sent),
            "B": resp.sent,
            "f": environ.get("HTTP_REFERER", "-"),
            "a": environ.get("HTTP_USER_AGENT", "-"),
            "T": us // 1000000,
            "M": us // 1000,
            "D": us,
            "L": "%d.%06d" % divmod(us, 1000000),
            "p": "<%d>" % os.getpid(),
        }
        atoms.update(("{%s}i" % name.lower(), value) for name, value in req.headers)
        atoms.update(("{%s}o" % name.lower(), value) for name, value in resp.headers)
        atoms.update(("{%s}e" % name.lower(), value) for name, value in environ.items())
        return atoms

    def now(self) -> str:
        """The time in the form of the access log."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def close_on_exec(self) -> None:
        """Files are never inherited."""

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
        """Opens every file of every logger anew, after a log rotation. The old one stays in use if that fails."""
        try:
            self._capture_output()
        except OSError as error:
            self._could_not_open(error)
        loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
        for logger in [logging.root, *loggers]:
            for handler in logger.handlers:
                if isinstance(handler, logging.FileHandler) and handler.stream is not None:
                    try:
                        stream = handler._open()
                    except OSError as error:
                        self._could_not_open(error)
                        continue
                    old = handler.setStream(stream)
                    if old is not None:
                        old.close()

    def _could_not_open(self, error: OSError) -> None:
        self.error("The log %s cannot be opened anew (%s): the old file stays in use", error.filename, error.strerror)

    # From here on: what subclasses of gunicorn's logger call, under its names.

    def _set_handler(self, log: logging.Logger, output: str | None, fmt: logging.Formatter, stream: Any = None) -> None:
        before = self._get_gunicorn_handler(log)
        if before is not None:
            log.removeHandler(before)
            before.close()
        if output is None:
            return
        handler: logging.Handler
        if output != "-":
            handler = FileHandler(output, self.cfg, delay=log is self.access_log)
        elif self.cfg.log_split and log is self.error_log:
            handler = SplitHandler(stream)
        else:
            handler = StreamHandler(stream)
        handler._gunicorn = True  # type: ignore[attr-defined]
        handler.setFormatter(fmt)
        log.addHandler(handler)

    def _get_gunicorn_handler(self, log: logging.Logger) -> logging.Handler | None:
        return next((handler for handler in log.handlers if getattr(handler, "_gunicorn", False)), None)

    def _get_user(self, environ: dict[str, Any]) -> str | None:
        return _basic_user(environ.get("HTTP_AUTHORIZATION", ""))


def _syslog_address(text: str) -> tuple[Any, int | None]:
    """Of `unix://PATH#dgram`, `udp://HOST:PORT` or `tcp://HOST:PORT`: the address, and the kind of socket (None: find out)."""
    kind, _, rest = text.partition("://")
    if kind == "unix":
        path, _, sort = rest.partition("#")
        return path, {"dgram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}.get(sort)
    if kind not in ("udp", "tcp"):
        raise RuntimeError("syslog_addr %r: unix://PATH, udp://HOST:PORT or tcp://HOST:PORT is needed" % text)
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        host, port = host or port, "514"
    if not port.isdigit():
        raise RuntimeError("syslog_addr %r: %r is no port" % (text, port))
    return (host.strip("[]") or "localhost", int(port)), socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM


def _basic_user(authorization: str) -> str | None:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials.strip()).split(b":", 1)[0].decode()
    except ValueError:
        return None


class ErrorStream:
    """wsgi.errors: a text stream into the error log (PEP 3333)."""

    encoding = "utf-8"

    def __init__(self, cfg: Config) -> None:
        # Not `error_log` of the logger: a logger_class that descends from no other has none.
        self._logger = logging.getLogger("gunicorn.error")
        self._as_records = cfg.log_format == "json"
        self._rest = ""
        self._stderr = StreamHandler(sys.stderr)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("wsgi.errors takes str, not %s" % type(text).__name__)
        if self._as_records:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._logger.error("%s", line)
            return len(text)
        handlers = [
            each for each in self._logger.handlers if isinstance(each, _WholeLines) or getattr(each, "stream", None)
        ]
        for handler in handlers or [self._stderr]:  # the app may have replaced ours by some that write to no stream
            if isinstance(handler, _WholeLines):
                handler.write(text)
            else:
                handler.stream.write(text)
                handler.flush()
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
