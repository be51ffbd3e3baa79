"""The log process: writes the lines of the master and of the fronts with the logger that the configuration asks for.

The master says on stdin, JSON, an object a line: first the settings, then `reopen` and `end`; its end is the end of this
process. Master and fronts connect to a Unix socket and send, after the token, their lines::

    {"level": "info", "pid": 7, "message": "..."}
    {"access": {...}}   see `src/log/log-link.ts`
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import logging
import os
import selectors
import signal
import socket
import sys
import traceback
from datetime import timedelta
from typing import Any

from .app import prepare_path
from .log import FileHandler, Logger, redirect_failed_stdio
from .process import die_with_parent, drop_privileges, set_title
from .settings import Config, load
from .views import RequestView

_READ_BYTES = 256 * 1024
_sender = 0  # the process that the present line is of


class _Request(RequestView):
    """A request as `Logger.access` and `Logger.atoms` take it. Its body is gone when its line is written."""

    def __init__(self, environ: dict[str, Any], headers: list[tuple[str, str]]) -> None:
        self._environ = environ
        self._headers = headers

    @property
    def headers(self) -> list[tuple[str, str]]:
        return self._headers


class _Response:
    """The answer to it."""

    headers_sent = True

    def __init__(self, access: dict[str, Any], request: _Request) -> None:
        self.req = request
        self.status = ("%d %s" % (access["status"], access["reason"])).rstrip()
        self.status_code = access["status"]
        self.sent = access["bytesSent"]
        self.headers = _pairs(access["responseHeaders"])
        lengths = (int(value) for name, value in self.headers if name.lower() == "content-length" and value.isdigit())
        self.response_length = next(lengths, None)
        self.pid = access["pid"]
        self.worker = access["worker"]
        self.thread = access["thread"]


def main() -> None:
    redirect_failed_stdio()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the master alone says when this process ends
    process = json.loads(sys.stdin.buffer.readline())
    set_title(process["title"])
    try:
        cfg = load(process)
        drop_privileges(process["uid"], process["gid"])
        die_with_parent()
        prepare_path(process)
        logger_class = with_sender(cfg.logger_class)
        logger = logger_class(cfg) if not process["check"] else check(cfg)
    except BaseException as error:
        if not isinstance(error, (RuntimeError, TypeError, ValueError, OSError)):
            traceback.print_exc()
        _report(problem=str(error) or type(error).__name__)
        os._exit(1)
    logging.setLogRecordFactory(_record)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(process["socket_path"])  # of the one before
    listener.bind(process["socket_path"])
    listener.listen(64)
    _report()
    serve(listener, process["token"].encode(), logger, base_environ(cfg, process["software"]))


def check(cfg: Any) -> None:
    """Sets up logging without opening a file. A logger class of the user's is only imported: what it does is not known."""
    if cfg.logger_class is not Logger:
        return
    for handler in (logging.FileHandler, FileHandler):
        handler._open = _open_nothing  # type: ignore[method-assign]
    _Trial(cfg)


class _Trial(Logger):
    def _capture_output(self) -> None:
        """It would open the file by itself."""


def _open_nothing(handler: logging.FileHandler) -> Any:
    path = handler.baseFilename
    code = None if os.path.isdir(os.path.dirname(path)) else errno.ENOENT
    if code is None and not os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK):
        code = errno.EACCES
    if code is not None:
        raise OSError(code, os.strerror(code), path)
    return open(os.devnull, "a")


def _report(**facts: Any) -> None:
    os.write(3, json.dumps(facts).encode() + b"\n")


def with_sender(base: type) -> type:
    """The logger class, with the pid of the process that a line is of."""

    class Logger(base):  # type: ignore[misc]
        def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> Any:
            atoms = super().atoms(resp, req, environ, request_time)
            atoms["p"] = "<%s>" % _sender
            return atoms

    return Logger


def _record(*arguments: Any, **keywords: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **keywords)
    record.process = _sender or record.process
    return record


def base_environ(cfg: Config, software: str) -> dict[str, Any]:
    """What is the same for all requests, or is so unless the front knows better."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": software,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if cfg.is_ssl else "http",
        "wsgi.multithread": cfg.threads > 1,
        "wsgi.multiprocess": cfg.workers > 1,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def serve(listener: socket.socket, token: bytes, logger: Any, base: dict[str, Any]) -> None:
    """Writes lines until the master has said `end`, or has gone, and all that was sent before is written."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    rests: dict[socket.socket, bytes] = {}
    known: set[socket.socket] = set()
    ending = False
    while True:
        ready = selector.select(0 if ending else None)
        if not ready and ending:
            logging.shutdown()
            os._exit(0)
        for key, _ in ready:
            if key.fileobj is listener:
                sock, _ = listener.accept()
                rests[sock] = b""
                selector.register(sock, selectors.EVENT_READ)
            elif key.fileobj == 0:
                words = os.read(0, 65536)
                if b"reopen" in words:
                    logger.reopen_files()
                if not words or b"end" in words.split():
                    ending = True
                    selector.unregister(0)
            else:
                sock = key.fileobj  # type: ignore[assignment]
                try:
                    data = sock.recv(_READ_BYTES)
                except OSError:
                    data = b""
                *lines, rests[sock] = (rests[sock] + data).split(b"\n")
                for line in lines:
                    if sock in known:
                        write(logger, line, base)
                    elif hmac.compare_digest(line, token):
                        known.add(sock)
                    else:
                        data = b""
                        break
                if not data:
                    selector.unregister(sock)
                    del rests[sock]
                    known.discard(sock)
                    sock.close()


def write(logger: Any, line: bytes, base: dict[str, Any]) -> None:
    global _sender
    try:
        entry = json.loads(line)
        access = entry.get("access")
        if access is None:
            _sender = entry["pid"]
            getattr(logger, entry["level"])("%s", entry["message"])
        else:
            _sender = access["pid"]
            logger.access(*of_request(access, base))
    except Exception:  # of a logger's own code: the lines after this one are to be written
        try:
            logger.exception("Error in the logger")
        except Exception:
            traceback.print_exc()


def of_request(access: dict[str, Any], base: dict[str, Any]) -> tuple[_Response, _Request, dict[str, Any], timedelta]:
    """Response, request, environ and duration, from what a front knows."""
    headers = _pairs(access["requestHeaders"])
    sent = dict(_pairs(access["environBlock"].split("\0")))
    if "REQUEST_METHOD" not in sent:  # its head was refused, or it is of a Node app: no environ was made of it
        sent.update(("HTTP_" + name.upper().replace("-", "_"), value) for name, value in headers)
    environ = {
        **base,
        "REQUEST_METHOD": access["method"],
        "RAW_URI": access["rawUri"],
        "QUERY_STRING": access["query"],
        "SERVER_PROTOCOL": access["protocol"],
        "REMOTE_ADDR": access["remoteAddress"],
        **sent,
        "PATH_INFO": access["path"],  # which the block may have encoded
        **access["environ"],
    }
    request = _Request(environ, [(name.upper(), value) for name, value in headers])
    return _Response(access, request), request, environ, timedelta(microseconds=access["durationUs"])


def _pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2]))
