"""The log process: writes the lines of the master and of the fronts with the logger that the configuration asks for.

The master says on stdin, JSON, an object a line: first the settings, then `reopen` and `end`; its end is the end of this
process. Master and fronts connect to a Unix socket and send, after the token, their lines::

    {"level": "info", "pid": 7, "message": "..."}
    {"access": {...}}   see `src/log/log-link.ts`
"""

from __future__ import annotations

import contextlib
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
from .log import redirect_failed_stdio
from .process import die_with_parent, drop_privileges, set_title
from .settings import load

_READ_BYTES = 256 * 1024
_sender = 0  # the process that the present line is of


class _Message:
    """A request or a response, as `Logger.access` and `Logger.atoms` take it."""

    def __init__(self, **facts: Any) -> None:
        self.__dict__.update(facts)


def main() -> None:
    redirect_failed_stdio()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the master alone says when this process ends
    process = json.loads(sys.stdin.buffer.readline())
    set_title(process["title"])
    try:
        cfg = load(process)
        drop_privileges(process["uid"], process["gid"])
        die_with_parent()
        prepare_path(process)
        logger = with_sender(cfg.logger_class)(cfg)
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
    serve(listener, process["token"].encode(), logger)


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


def serve(listener: socket.socket, token: bytes, logger: Any) -> None:
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
                        write(logger, line)
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


def write(logger: Any, line: bytes) -> None:
    global _sender
    try:
        entry = json.loads(line)
        access = entry.get("access")
        if access is None:
            _sender = entry["pid"]
            logger.log(entry["level"], "%s", entry["message"])
        else:
            _sender = access["pid"]
            logger.access(*of_request(access))
    except Exception:  # of a logger's own code: the lines after this one are to be written
        traceback.print_exc()


def of_request(access: dict[str, Any]) -> tuple[_Message, _Message, dict[str, Any], timedelta]:
    """Response, request, environ and duration, from what a front knows."""
    headers = _pairs(access["requestHeaders"])
    environ = {
        "REQUEST_METHOD": access["method"],
        "RAW_URI": access["rawUri"],
        "PATH_INFO": access["path"],
        "QUERY_STRING": access["query"],
        "SERVER_PROTOCOL": access["protocol"],
        "REMOTE_ADDR": access["remoteAddress"],
    }
    for name, value in headers:
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ.update(access["environ"])
    request = _Message(
        method=access["method"],
        uri=access["rawUri"],
        path=access["rawUri"].partition("?")[0],
        query=access["query"],
        headers=[(name.upper(), value) for name, value in headers],
        remote_addr=(access["remoteAddress"], 0),
    )
    response = _Message(
        status=str(access["status"]),
        status_code=access["status"],
        sent=access["bytesSent"],
        headers=_pairs(access["responseHeaders"]),
    )
    return response, request, environ, timedelta(microseconds=access["durationUs"])


def _pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2]))
