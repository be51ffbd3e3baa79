"""The golden frames, as the worker reads and writes them, and the reading of frames in pieces."""

from __future__ import annotations

import json
import os
import random
import tempfile
import unittest
from itertools import chain, repeat
from unittest import mock

from nunicorn_worker import slot, wsgi
from nunicorn_worker.environ_atoms import telling_environ
from nunicorn_worker.slot import Slot
from support import ROOT, Body, Front

with open(os.path.join(ROOT, "test", "golden", "frames.json")) as golden_file:
    GOLDEN = json.load(golden_file)


def golden_bytes(entry):
    return bytes.fromhex("".join(entry["bytes"]))


class NoLog:
    def exception(self, message):
        pass


class SlotTest(unittest.TestCase):
    """A slot without its thread, connected to `front`."""

    def setUp(self):
        self.front = Front()
        self.addCleanup(self.front.connection.close)
        self.addCleanup(self.front.close)
        self.front.settimeout(10)
        self.begun = [0]
        self.slot = Slot(0, None, {"wsgi.file_wrapper": wsgi.FileWrapper}, self.begun, NoLog(), lambda why: None)
        self.slot._connection = self.front.connection

    def received(self):
        """All that the slot has sent, its side being closed then."""
        self.slot.flush()
        self.front.connection.close()
        data = b""
        while piece := self.front.recv(65536):
            data += piece
        return data


class TestRequests(SlotTest):
    def expected(self, entry):
        block = "\0".join(part for pair in entry["environ"] for part in pair).encode("latin-1")
        return (entry["id"], entry["flags"], block, bytes.fromhex(entry["body"] or ""))

    def test_golden_requests_are_read(self):
        for entry in GOLDEN["requests"]:
            with self.subTest(entry["name"]):
                self.front.sendall(golden_bytes(entry))
                self.assertTrue(self.slot._read())
                self.assertEqual([self.slot._ahead.popleft()], [self.expected(entry)])
                self.assertEqual(self.slot._rest, b"")

    def test_golden_requests_become_environ(self):
        for entry in GOLDEN["requests"]:
            with self.subTest(entry["name"]):
                seen = {}
                bodies = []

                def app(environ, start_response, seen=seen, bodies=bodies):
                    seen.update(environ)
                    bodies.append(environ["wsgi.input"].read())
                    start_response("200 OK", [])
                    return []

                self.front.sendall(golden_bytes(entry))
                self.slot._read()
                request_id, flags, block, body = self.slot._ahead.popleft()
                with tempfile.NamedTemporaryFile() as file:
                    if flags & 2:
                        file.write(body)
                        file.flush()
                        body = os.fsencode(file.name)
                    wsgi.run(app, {}, self.slot, (request_id, flags, block, body))
                expected = dict(entry["environ"])
                if flags & 1:
                    expected["PATH_INFO"] = expected["PATH_INFO"].replace("%00", "\0")
                self.assertEqual({name: seen[name] for name in expected}, expected)
                self.assertEqual(bodies, [bytes.fromhex(entry["body"] or "")])

    def test_all_at_once(self):
        self.front.sendall(b"".join(map(golden_bytes, GOLDEN["requests"])))
        while len(self.slot._ahead) < len(GOLDEN["requests"]):
            self.assertTrue(self.slot._read())
        self.assertEqual(list(self.slot._ahead), list(map(self.expected, GOLDEN["requests"])))

    def test_every_split_in_two(self):
        first, second = GOLDEN["requests"][1], GOLDEN["requests"][3]
        data = golden_bytes(first) + golden_bytes(second)
        for at in range(1, len(data)):
            with self.subTest(at=at):
                for piece in (data[:at], data[at:]):
                    self.front.sendall(piece)
                    self.assertTrue(self.slot._read(wait=False))
                self.assertEqual(list(self.slot._ahead), [self.expected(first), self.expected(second)])
                self.assertEqual(self.slot._rest, b"")
                self.slot._ahead.clear()

    def test_byte_by_byte(self):
        for entry in GOLDEN["requests"]:
            data = golden_bytes(entry)
            for at in range(len(data)):
                self.assertEqual(list(self.slot._ahead), [])
                self.front.sendall(data[at : at + 1])
                self.slot._read(wait=False)
            self.assertEqual([self.slot._ahead.popleft()], [self.expected(entry)])

    def test_random_chunks(self):
        chance = random.Random(1)
        for round_number in range(100):
            entries = chance.choices(GOLDEN["requests"], k=chance.randrange(1, 30))
            data = b"".join(map(golden_bytes, entries))
            while data:
                size = chance.choice([1, 3, 19, 20, 21, 100, 1000])
                self.front.sendall(data[:size])
                data = data[size:]
                self.slot._read(wait=False)
            self.assertEqual(list(self.slot._ahead), list(map(self.expected, entries)), round_number)
            self.assertEqual(self.slot._rest, b"")
            self.slot._ahead.clear()

    def test_garbage_is_no_exception(self):
        chance = random.Random(2)
        for _ in range(500):
            self.front.sendall(chance.randbytes(chance.randrange(1, 200)))
            self.slot._read(wait=False)
            self.slot._ahead.clear()
            self.slot._rest = b""

    def test_a_blocking_read_waits_for_a_whole_frame(self):
        data = golden_bytes(GOLDEN["requests"][0])
        pieces = iter([data[:10], data[10:30], data[30:]])
        with mock.patch.object(slot, "read", lambda descriptor, size: next(pieces)):
            self.assertTrue(self.slot._read())
        self.assertEqual(list(self.slot._ahead), [self.expected(GOLDEN["requests"][0])])
        self.assertIsNone(next(pieces, None))

    def test_the_end_of_the_connection(self):
        self.front.sendall(golden_bytes(GOLDEN["requests"][0])[:-1])
        self.front.close()
        self.assertFalse(self.slot._read())
        self.assertEqual(list(self.slot._ahead), [])


def started(status, headers, body=(), error=None):
    """An app that calls start_response, then gives `body` piece by piece and raises `error`."""

    def app(environ, start_response):
        start_response(status, headers)
        yield from body
        if error is not None:
            raise error

    return app


def whole(status, headers, *body):
    def app(environ, start_response):
        start_response(status, headers)
        return list(body)

    return app


def hinting(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("Link", "</b.js>")])
    start_response("200 OK", [])
    return [b"ok"]


def sending_file(environ, start_response):
    file = tempfile.TemporaryFile()
    file.write(b"..\0file\xff")
    file.flush()
    file.seek(2)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](file)


def naming_a_user(environ, start_response):
    environ.update({"REMOTE_USER": "bob", "X.Y": "\u20ac\0\xe9"})
    start_response("200 OK", [])
    return [b"ok"]


def closing(environ, start_response):
    start_response("200 OK", [])
    return Body(b"ok")


COOKIES = [("Content-Type", "text/plain"), ("X-Latin", "\xe9\xff"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]

# What gives the golden answers: method and app.
APPS = {
    "whole": ("GET", whole("201 Made It", COOKIES, b"a\0", b"\xff\nz")),
    "empty": ("GET", whole("204 No Content", [])),
    "pieces": ("GET", started("200 OK", [("X-A", "")], [b"first", b"", b"\0\xff", b"last"])),
    "cut": ("GET", started("200 OK", [], [b"first"], ValueError("late"))),
    "too short": ("GET", whole("200 OK", [("Content-Length", "10")], b"12345")),
    "error": ("GET", started("200 OK", [], [], ValueError("early"))),
    "hints": ("GET", hinting),
    "head only": ("HEAD", started("200 OK", [("Content-Length", "5")], [b"12345"])),
    "file": ("GET", sending_file),
    "complete": ("GET", started("200 OK", [("Content-Length", "2")], [b"ok"])),
    "complete with the last piece": ("GET", started("200 OK", [("Content-Length", "4")], [b"ok", b"ay"])),
    "close": ("GET", closing),
    "environ": ("GET", telling_environ(naming_a_user, ["Remote_User", "X.Y", "NOT_THERE"])),
}


class TestAnswers(SlotTest):
    def test_each_golden_answer_has_an_app(self):
        self.assertEqual({entry["name"] for entry in GOLDEN["answers"]}, set(APPS))

    def run_app(self, entry):
        method, app = APPS[entry["name"]]
        block = f"REQUEST_METHOD\0{method}\0PATH_INFO\0/".encode()
        with mock.patch.object(wsgi, "_perf_counter", chain([1.0], repeat(1.25)).__next__):
            wsgi.run(app, self.slot.base_environ, self.slot, (entry["id"], 0, block, b""))

    def test_all_in_a_row(self):
        for entry in GOLDEN["answers"]:
            self.run_app(entry)
        self.assertEqual(self.received().hex(), b"".join(map(golden_bytes, GOLDEN["answers"])).hex())


for golden_entry in GOLDEN["answers"]:

    def check(self, entry=golden_entry):
        self.run_app(entry)
        self.assertEqual(self.received().hex(), golden_bytes(entry).hex())

    setattr(TestAnswers, "test_" + golden_entry["name"].replace(" ", "_"), check)


if __name__ == "__main__":
    unittest.main()
