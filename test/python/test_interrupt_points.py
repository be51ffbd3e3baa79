"""Interruptions at every bytecode: a request is interrupted right before each one that its thread comes to, from the
moment it has begun to its last frame. Whatever the place, the request has one answer, the next one on the same thread is
answered too, and no lock stays held.

The tracer runs at every bytecode of the worker and of the app. There it has another thread interrupt the request, as the
control thread would, and waits until that has been done: the exception comes out of the tracer, which is as if the
interpreter had raised it at that place. And sometimes, as the control thread may be slow, that thread is held between its
look at what runs and its interruption of that, until so many bytecodes later.
"""

from __future__ import annotations

import _thread
import os
import random
import subprocess
import sys
import textwrap
import threading
import unittest

from nunicorn_worker import interrupt, wsgi
from nunicorn_worker.slot import Slot
from support import ANSWER, END, ERROR, HEAD, Front
from test_interrupt import READY, Frames, Log, request

DEADLINE_S = 20
# All places take long: each run takes every STRIDE-th, beginning with another one each time. 1: all of them.
STRIDE = int(os.environ.get("NUNICORN_INTERRUPT_STRIDE", "29"))
HIT, NEXT = 1, 2
LATER = (0, 0, 1, 20, 100, 400)
TRACED = (os.path.dirname(wsgi.__file__), __file__)


class Closing:
    def __iter__(self):
        return iter([b"piece", b"piece"])

    def close(self):
        pass


def application(environ, start_response):
    path = environ["PATH_INFO"]
    write = start_response("200 OK", [("X-Path", path)])
    if path == "/write":
        write(b"piece")
        return []
    if path == "/stream":
        return (b"piece" for _ in range(2))
    if path == "/closing":
        return Closing()
    if path == "/extend":
        environ["nunicorn.extend_deadline"](1)
    if path == "/raises":
        raise ValueError
    return [b"answer of " + path.encode()]


set_async_exc = interrupt._set_async_exc
PATHS = ("/plain", "/write", "/stream", "/closing", "/extend", "/raises")


class Tracer:
    """Interrupts the first request at its `place`-th bytecode, or, if that is late, `later` ones after it.

    `count` is how many bytecodes there were.
    """

    def __init__(self, slot, place, later):
        self.slot = slot
        self.place = place
        self.later = later
        self.count = 0
        self.where = None
        self._held = False
        self._go, self._done, self._door = (_thread.allocate_lock() for _ in range(3))
        for lock in (self._go, self._done, self._door):
            lock.acquire()
        self._thread = threading.Thread(target=self._interrupt)
        self._thread.start()

    def trace(self, frame, event, _argument):
        code = frame.f_code
        if not code.co_filename.startswith(TRACED) or code.co_name == "trace":
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and self.slot.begun[0] == HIT:
            self.count += 1
            if self.count == self.place:
                self.where = f"{os.path.basename(code.co_filename)}:{frame.f_lineno} in {code.co_name}"
                self._go.release()
                self._done.acquire()
            if self._held and self.count >= self.place + self.later:
                self._held = False
                self._door.release()
                self._done.acquire()
        return self.trace

    def _interrupt(self):
        self._go.acquire()
        if self.count < self.place:
            return
        interrupt._set_async_exc = self._set_later
        try:
            self.slot.app_code.interrupt(HIT)
        finally:
            interrupt._set_async_exc = set_async_exc
        self._done.release()

    def _set_later(self, thread, error):
        if self.later and threading.current_thread() is self._thread:
            self._held = True
            self._done.release()
            # The other one may wait for this one, and not every Python tells the tracer of that (3.13.0 does not).
            self._door.acquire(timeout=0.1)
        return set_async_exc(thread, error)

    def end(self):
        if self.count < self.place:
            self._go.release()
        if self._held:
            self._door.release()
        self._thread.join(DEADLINE_S)


def terminal(front, frames, request_id):
    """Waits for the last frame of a request's answer and returns its kind. No other request's frame may come before."""
    begun = False
    while True:
        piece = front.recv(65536)
        assert piece, "the connection ended"
        for kind, _, found, _, _ in frames.feed(piece):
            if kind == READY:
                continue
            assert found == request_id, f"a frame of {found} while {request_id} runs"
            if kind in (ANSWER, ERROR):
                assert not begun, "an answer behind its head"
            if kind in (ANSWER, END, ERROR):
                assert not frames.data, "more behind the last frame"
                return kind
            begun = begun or kind == HEAD


def attempt(path, place, serve, later=0):
    """One request to `path`, interrupted at `place`, and another one behind it.

    Returns the tracer and the kind of the first one's last frame.
    """
    log = Log()
    slot = Slot(0, application, {"wsgi.file_wrapper": wsgi.FileWrapper}, [0], log, lambda why: None)
    front = Front()
    front.settimeout(DEADLINE_S)
    slot.connect(front.connection)
    tracer = Tracer(slot, place, later)
    found = []

    def client():
        try:
            frames = Frames()
            front.sendall(request(HIT, path))
            found.append(terminal(front, frames, HIT))
            front.sendall(request(NEXT, "/plain"))
            kind = terminal(front, frames, NEXT)
            assert kind == ANSWER, f"the next request got a frame of kind {kind}"
            assert slot._send_lock.acquire(timeout=DEADLINE_S), "the send lock stayed held"
            slot._send_lock.release()
        except BaseException as error:
            found.append(error)
        finally:
            front.close()
            slot.leave()

    serve(slot, tracer, client)
    tracer.end()
    where = f"{path}, bytecode {place}, {later} late: {tracer.where}"
    for error in found:
        if isinstance(error, BaseException):
            raise AssertionError(f"{where}: {error}")
    assert slot._read_lock.acquire(timeout=DEADLINE_S), f"{where}: the read lock stayed held"
    assert slot.app_code._request == 0, f"{where}: still interruptible"
    unexpected = [line for line in log.lines if "ValueError" not in line]
    assert not unexpected, f"{where}: {unexpected}"
    return tracer, found[0]


def attempt_all(serve):
    """Returns (places tried, how many of them ended the request)."""
    tried = ended = 0
    for path in PATHS:
        tracer, kind = attempt(path, sys.maxsize, serve)
        assert kind in (ANSWER, END) or path == "/raises"
        for place in range(1 + random.randrange(STRIDE), tracer.count + 1, STRIDE):
            _, kind = attempt(path, place, serve, random.choice(LATER))
            tried += 1
            ended += kind == ERROR
    return tried, ended


def serve_in_thread(slot, tracer, client):
    def run():
        sys.settrace(tracer.trace)
        slot.serve_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), f"the thread does not end, interrupted at {tracer.where}"


def serve_in_main(slot, tracer, client):
    thread = threading.Thread(target=client)
    thread.start()
    sys.settrace(tracer.trace)
    try:
        slot.serve_forever()
    finally:
        sys.settrace(None)
    thread.join(DEADLINE_S)


class EveryPlace(unittest.TestCase):
    def test_an_asynchronous_exception_at_any_bytecode_leaves_the_thread_whole(self):
        tried, ended = attempt_all(serve_in_thread)
        self.assertGreater(ended, tried // 10, "next to nothing was interrupted: the test tests nothing")

    def test_a_signal_at_any_bytecode_leaves_the_main_thread_whole(self):
        code = """
            import test_interrupt_points as t
            print(*t.attempt_all(t.serve_in_main))
        """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S + 300 / STRIDE,
        )
        self.assertEqual(run.returncode, 0, run.stdout)
        tried, ended = map(int, run.stdout.split())
        self.assertGreater(ended, tried // 10, run.stdout)


if __name__ == "__main__":
    unittest.main()
