"""What the tests of the worker share: a slot without a thread, and a decoder of its own for what the slot sends.

To run them without node: PYTHONPATH=$PWD/src/bridge/python python3 -m unittest discover -s test/python
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

from nunicorn_worker import wsgi
from nunicorn_worker.interrupt import Interruptible
from nunicorn_worker.pipes import Connection, Offer
from nunicorn_worker.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

ANSWER, HEAD, DATA, END, ERROR, HINTS = 2, 3, 4, 5, 6, 7


class Frame(NamedTuple):
    kind: int
    flags: int
    status: int
    id: int
    head: str
    body: bytes
    app_us: int


def split_frames(data: bytes) -> list[Frame]:
    """The frames in `data`, which must end with one."""
    found = []
    at = 0
    while at < len(data):
        length, kind, flags, status, request_id, head, app_us = struct.unpack_from("<IBBHIII", data, at)
        payload = data[at + 20 : at + 20 + length]
        if len(payload) != length or head > length:
            raise AssertionError(f"a cut frame at {at}: {data!r}")
        found.append(Frame(kind, flags, status, request_id, payload[:head].decode("latin-1"), payload[head:], app_us))
        at += 20 + length
    return found


class Front:
    """The other ends of a slot's pipes, as if they were a socket; `connection` is for the slot."""

    connection: Connection

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "pipes")
            offer = Offer(path)
            self._requests = os.open(path + ".requests", os.O_WRONLY)
            self._answers = os.open(path + ".answers", os.O_RDONLY)
            self.connection = offer.taken()
        self._timeout: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def setblocking(self, blocking: bool) -> None:
        self._timeout = None if blocking else 0

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._requests, data) :]

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = b""
        while True:
            if not select.select([self._answers], [], [], self._timeout)[0]:
                raise BlockingIOError if self._timeout == 0 else TimeoutError
            piece = os.read(self._answers, size - len(data))
            data += piece
            if not piece or len(data) == size or flags != socket.MSG_WAITALL:
                return data

    def close(self) -> None:
        """As the control thread does it when it hears that the front is gone."""
        if self._requests >= 0:
            os.close(self._requests)
            os.close(self._answers)
            self._requests = self._answers = -1
        self.connection.end()


class FakeSlot:
    """Gathers what a Slot would send. `before_send`, if set, is called before each piece that leaves at once."""

    class Broken(Exception):
        pass

    def __init__(self) -> None:
        self.cancelled: set[int] = set()
        self.app_code = Interruptible()
        self.tail = Tail()
        self.out: list[bytes] = []
        self.logged: list[str] = []
        self.wire = b""
        self.before_send: Callable[[], None] | None = None

    def log_exception(self, message: str) -> None:
        self.logged.append(f"{message}: {sys.exc_info()[1]!r}")

    def send(self, *pieces: bytes) -> None:
        if self.before_send is not None:
            self.before_send()
        self.out += pieces
        self.wire += b"".join(self.out)
        self.out.clear()

    def replace(self, header: bytes, new: bytes) -> bool:
        if header not in self.out:
            return False
        self.out[self.out.index(header)] = new
        return True

    def send_file_frame(self, header: bytes, fd: int, offset: int, size: int) -> None:
        data = os.pread(fd, size, offset)
        if len(data) < size:
            raise self.Broken
        self.send(header, data)

    def frames(self) -> list[Frame]:
        return split_frames(self.wire + b"".join(self.out))


class Outcome:
    """The frames of one request's answer, put together."""

    def __init__(self, slot: FakeSlot) -> None:
        self.slot = slot
        self.frames = slot.frames()
        self.kinds = [frame.kind for frame in self.frames]
        self.logged = slot.logged
        self.failed = ERROR in self.kinds
        self.cut = any(frame.kind == END and frame.flags & 1 for frame in self.frames)
        self.hints = [frame.head for frame in self.frames if frame.kind == HINTS]
        self.body = b"".join(frame.body for frame in self.frames)
        heads = [frame for frame in self.frames if frame.kind in (ANSWER, HEAD)]
        if len(heads) > 1 or (not heads and not self.failed):
            raise AssertionError(f"not one answer: {self.frames!r}")
        self.status, self.reason, self.headers = 0, "", []
        if heads:
            reason, *lines, end = heads[0].head.split("\r\n")
            self.status, self.reason = heads[0].status, reason
            self.headers = [tuple(line.split(": ", 1)) for line in lines]
            if end:
                raise AssertionError(f"a line without an end: {end!r}")


def answer(
    app: Callable[..., Any],
    method: str = "GET",
    environ: dict[str, str] | None = None,
    body: bytes = b"",
    flags: int = 0,
    slot: FakeSlot | None = None,
) -> Outcome:
    """Runs one request with the id 7 through `app`."""
    slot = slot or FakeSlot()
    entries = {"REQUEST_METHOD": method, "RAW_URI": "/raw", "PATH_INFO": "/"}
    entries.update(environ or {})
    block = "\0".join(part for pair in entries.items() for part in pair).encode("latin-1")
    wsgi.run(app, {"wsgi.file_wrapper": wsgi.FileWrapper}, slot, (7, flags, block, body))
    return Outcome(slot)


class Body:
    """An iterable that yields pieces, raises those that are exceptions, and counts its close()."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = list(pieces)
        self.closed = 0

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> Any:
        if not self.pieces:
            raise StopIteration
        piece = self.pieces.pop(0)
        if callable(piece):
            piece = piece()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1
