"""Interruptions at random moments: they hit the app's own code, or nothing.

Each request is answered with whole frames, in order, once. No frame is cut, no other request is hit, no lock stays held.
The seed of a run that failed is in its message: NUNICORN_FUZZ_SEED repeats it, as far as threads repeat.
"""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
import sys
import textwrap
import threading
import time
import unittest
from unittest import mock

from nunicorn_worker import interrupt, wsgi
from nunicorn_worker.slot import Slot
from support import ANSWER, DATA, END, ERROR, HEAD, Front

DEADLINE_S = 20
REQUESTS = 1500
SEED = int(os.environ.get("NUNICORN_FUZZ_SEED", str(random.randrange(1 << 32))))
LAST, READY = 1, 9
PIECE = b"p" * 3000
# More than the socket takes at once: the thread is interrupted while it waits in send.
BIG = b"b" * 600_000


def request(request_id, path):
    block = f"REQUEST_METHOD\0GET\0PATH_INFO\0{path}".encode("latin-1")
    return struct.pack("<IBBHIII", len(block), 1, 0, 0, request_id, len(block), 0) + block


class Log:
    def __init__(self):
        self.lines = []

    def exception(self, message):
        self.lines.append(f"{message}: {sys.exc_info()[1]!r}")


class Closing:
    """An answer whose close() takes its time."""

    def __iter__(self):
        return iter([PIECE, PIECE])

    def close(self):
        spin(0.0005)


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/spin":
        spin(0.001)
    if path == "/handles":
        try:
            spin(0.001)
        finally:
            spin(0.0001)
    write = start_response("200 OK", [("X-Path", path)])
    if path == "/write":
        for _ in range(4):
            write(PIECE)
        return []
    if path == "/stream":
        return (PIECE for _ in range(8))
    if path == "/big":
        return (BIG for _ in range(2))
    if path == "/closing":
        return Closing()
    if path == "/extend":
        for _ in range(5):
            environ["nunicorn.extend_deadline"](1)
    return [b"answer of " + path.encode()]


# Answers that go out in pieces, and the size of their bodies.
SIZES = {"/write": 4 * len(PIECE), "/stream": 8 * len(PIECE), "/closing": 2 * len(PIECE), "/big": 2 * len(BIG)}
PATHS = ["/spin", "/handles", "/write", "/stream", "/closing", "/extend", "/plain", "/big"]


class Frames:
    """Takes bytes, gives whole frames: (kind, flags, id, bytes of the head block, payload)."""

    def __init__(self):
        self.data = b""

    def feed(self, piece):
        self.data += piece
        found = []
        while len(self.data) >= 20:
            length, kind, flags, _, request_id, head, _ = struct.unpack_from("<IBBHIII", self.data)
            if kind not in range(2, 11) or head > length or length > 1 << 20:
                raise AssertionError(f"no frame: {self.data[:40]!r}")
            if len(self.data) < 20 + length:
                break
            found.append((kind, flags, request_id, head, self.data[20 : 20 + length]))
            self.data = self.data[20 + length :]
        return found


def fuzz(slot, front, seed):
    """Sends requests, interrupts at random moments, and checks every frame. Returns (answered, interrupted)."""
    dice = random.Random(seed)
    running, wanted = [0], set()
    over = threading.Event()

    def interrupter():
        while not over.is_set():
            time.sleep(dice.random() * 0.0006)
            # Mostly the one that runs, sometimes one that is over or has not come.
            request_id = max(1, running[0] + dice.choice([0, 0, 0, 0, -1, 1, 2]))
            wanted.add(request_id)
            slot.app_code.interrupt(request_id)

    thread = threading.Thread(target=interrupter)
    thread.start()
    frames, answered, interrupted = Frames(), 0, 0
    paths, begun, size = {}, False, 0
    front.settimeout(DEADLINE_S)
    try:
        sent = 0
        while answered < REQUESTS:
            batch = dice.choice([1, 1, 1, 5])
            data = b""
            for _ in range(batch):
                sent += 1
                paths[sent] = dice.choice(PATHS)
                data += request(sent, paths[sent])
            front.sendall(data)
            while answered < sent:
                running[0] = answered + 1
                piece = front.recv(65536)
                assert piece, "the connection ended"
                for kind, flags, request_id, head, payload in frames.feed(piece):
                    if kind == READY:
                        continue
                    assert request_id == answered + 1, f"a frame of {request_id} while {answered + 1} runs"
                    path = paths[request_id]
                    if kind == HEAD:
                        assert not begun, f"two heads of {path}"
                        begun, size = True, len(payload) - head
                    elif kind == DATA:
                        assert begun and payload in (b"", PIECE, BIG), f"a piece of {len(payload)} of {path}"
                        size += len(payload)
                    if kind == END or (kind in (HEAD, DATA) and flags & LAST):
                        assert begun, f"an end of {path} without a beginning"
                        assert (kind == END and flags & 1) or size == SIZES[path], f"{size} bytes of {path}"
                    if kind in (ANSWER, ERROR):
                        assert not begun, f"an answer of {path} behind its head"
                    if kind == ERROR or (kind == END and flags & 1):
                        assert request_id in wanted, f"{request_id} was hit, and nobody wanted that"
                        interrupted += 1
                    if kind in (ANSWER, END, ERROR):
                        answered += 1
                        running[0], begun, size = answered + 1, False, 0
    finally:
        over.set()
        thread.join()
    assert not frames.data, "a cut frame"
    # The read lock is held while the thread waits for the next request: that it serves to the end shows that it is let go.
    assert slot._send_lock.acquire(timeout=DEADLINE_S), "the send lock stayed held"
    slot._send_lock.release()
    return answered, interrupted


def make_slot():
    log = Log()
    slot = Slot(0, application, {"wsgi.file_wrapper": wsgi.FileWrapper}, [0], log, lambda why: None)
    front = Front()
    slot.connect(front.connection)
    return slot, front, log


class Interruptions(unittest.TestCase):
    def test_asynchronous_exceptions_hit_the_app_or_nothing(self):
        slot, front, log = make_slot()
        thread = threading.Thread(target=slot.serve_forever, daemon=True)
        thread.start()
        try:
            answered, interrupted = fuzz(slot, front, SEED)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}: {error}") from error
        self.assertGreaterEqual(answered, REQUESTS)
        self.assertGreater(interrupted, REQUESTS // 100, "nothing was interrupted: the test tests nothing")
        self.assertEqual(log.lines, [], f"seed {SEED}")
        self.assertTrue(thread.is_alive())
        front.close()
        slot.leave()
        thread.join(DEADLINE_S)
        self.assertFalse(thread.is_alive())

    def test_an_interruption_that_meets_the_beginning_of_the_app_code_ends_there(self):
        """The control thread has seen that the app's code begins, and is slow to interrupt it."""
        set_async_exc, seen, begun = interrupt._set_async_exc, threading.Event(), threading.Event()
        control = []

        class Meeting(interrupt.Interruptible):
            def __setattr__(self, name, value):
                super().__setattr__(name, value)
                if name == "_request" and value and not control:
                    control.append(threading.Thread(target=self.interrupt, args=(value,)))
                    control[0].start()
                    seen.wait(DEADLINE_S)

        def set_late(thread, error):
            if threading.current_thread() in control:
                seen.set()
                begun.wait(0.2)
            return set_async_exc(thread, error)

        hits = []

        def run():
            app_code = Meeting()
            app_code.bind()
            for place in ("in enter", "behind it"):
                try:
                    if place == "in enter":
                        app_code.enter(1)
                    begun.set()
                    control[0].join(DEADLINE_S)
                except interrupt.RequestTimeout as error:
                    hits.append(f"{place}: {error}")

        with mock.patch.object(interrupt, "_set_async_exc", set_late):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join(DEADLINE_S)
        self.assertEqual(hits, ["in enter: the request ran into --timeout"])

    def test_signals_hit_the_app_or_nothing(self):
        """The main thread is interrupted by a signal: in a process of its own, whose main thread serves."""
        code = """
            import sys, threading
            import test_interrupt as t
            slot, front, log = t.make_slot()
            result = []
            def client():
                try:
                    result.extend(t.fuzz(slot, front, int(sys.argv[1])))
                except BaseException as error:
                    result.append(repr(error))
                front.close()
                slot.leave()
            threading.Thread(target=client).start()
            slot.serve_forever()
            print(result, log.lines)
        """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(SEED)],
            cwd=os.path.dirname(__file__),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
        )
        self.assertEqual(run.returncode, 0, f"seed {SEED}: {run.stdout}")
        match = re.match(r"\[(\d+), (\d+)\] ", run.stdout)
        self.assertTrue(match, f"seed {SEED}: {run.stdout}")
        answered, interrupted = int(match.group(1)), int(match.group(2))
        self.assertGreaterEqual(answered, REQUESTS, run.stdout)
        self.assertGreater(interrupted, REQUESTS // 100, run.stdout)
        self.assertTrue(run.stdout.rstrip().endswith("[]"), run.stdout)


if __name__ == "__main__":
    unittest.main()
