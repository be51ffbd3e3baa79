"""A thread of a worker at its connection: order, begun words, taking back, and a connection that breaks."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import tempfile
import threading
import time
import unittest
import unittest.mock

from nunicorn_worker import slot, wsgi
from nunicorn_worker.frames import EXTEND, READY
from nunicorn_worker.slot import Slot
from support import ANSWER, DATA, END, ERROR, HEAD, Front, split_frames

DEADLINE_S = 10


def request(request_id, path="/", body=b""):
    block = f"REQUEST_METHOD\0GET\0PATH_INFO\0{path}".encode("latin-1")
    return struct.pack("<IBBHIII", len(block) + len(body), 1, 0, 0, request_id, len(block), 0) + block + body


class Log:
    def __init__(self):
        self.lines = []

    def exception(self, message):
        self.lines.append(message)


class ServingSlot(unittest.TestCase):
    """A slot with its thread. `/wait` waits for `go`, having set `waiting`."""

    def setUp(self):
        self.waiting, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.ran = []
        self.begun = [0]
        self.seen_begun = []
        self.asked_to_leave = []
        base_environ = {"wsgi.file_wrapper": wsgi.FileWrapper}
        self.log = Log()
        self.slot = Slot(0, self.app, base_environ, self.begun, self.log, self.asked_to_leave.append)
        self.thread = threading.Thread(target=self.slot.serve_forever, daemon=True)
        self.thread.start()
        self.front = self.connect()
        self.addCleanup(self.finish)

    def connect(self, until_ready=True):
        front = Front()
        front.settimeout(DEADLINE_S)
        self.addCleanup(front.close)
        self.slot.connect(front.connection)
        if until_ready:
            self.await_ready(front)
        return front

    def await_ready(self, front):
        self.assertEqual(front.recv(20, socket.MSG_WAITALL)[4], READY)

    def await_abandoned(self, connection):
        deadline = time.monotonic() + DEADLINE_S
        while connection.requests >= 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)

    def finish(self):
        for _ in range(50):
            self.go.release()
        self.front.close()
        self.slot.leave()
        self.thread.join(DEADLINE_S)
        self.assertFalse(self.thread.is_alive())

    def app(self, environ, start_response):
        path = environ["PATH_INFO"]
        self.ran.append(path)
        self.seen_begun.append(self.begun[0])
        if path == "/wait/more-time":
            self.extend = lambda: environ["nunicorn.extend_deadline"](60)
        if path.startswith("/wait"):
            self.waiting.release()
            self.go.acquire()
        if path == "/closes":
            os.close(self.slot._connection.answers)
        if path == "/null":
            with open(os.devnull, "rb") as null:
                os.dup2(null.fileno(), self.slot._connection.requests)
        if path.startswith("/shrinks"):
            return self.shrinking_file(environ, start_response)
        if path == "/file":
            self.extend = lambda: environ["nunicorn.extend_deadline"](60)
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](self.file())
        if path.startswith("/pieces"):
            return self.pieces(path, start_response)
        if path == "/fails":
            raise ValueError("the app fails")
        if path == "/kept":
            self.kept = environ["nunicorn.extend_deadline"], start_response("200 OK", [("Content-Length", "0")])
            return []
        if path == "/view":
            self.kept = memoryview(environ["wsgi.input"].getbuffer())
        start_response("200 OK", [])
        if path == "/scheduled":
            return [b"%d" % os.sched_getscheduler(0)]
        return [path.encode()]

    def pieces(self, path, start_response):
        """A whole body in one piece; `/pieces/wait` waits before it ends."""
        start_response("200 OK", [("Content-Length", "4")])
        yield b"body"
        if path == "/pieces/wait":
            self.waiting.release()
            self.go.acquire()

    @staticmethod
    def file():
        file = tempfile.NamedTemporaryFile()
        file.write(b"x" * 1000)
        file.seek(0)
        return file

    def shrinking_file(self, environ, start_response):
        file = self.file()
        send = self.slot.send_file_frame

        def shrink_first(*arguments):
            os.truncate(file.name, 10)
            return send(*arguments)

        self.slot.send_file_frame = shrink_first
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    def await_waiting(self):
        self.assertTrue(self.waiting.acquire(timeout=DEADLINE_S))

    def answers(self, front, count):
        """The next `count` frames."""
        data = b""
        found = []
        while len(found) < count:
            piece = front.recv(65536)
            self.assertTrue(piece, "the connection ended")
            data += piece
            try:
                found = split_frames(data)
            except (AssertionError, struct.error):
                continue
        return found

    def test_what_the_app_calls_when_its_request_has_ended_is_not_taken_for_the_next_one(self):
        self.front.sendall(request(1, "/kept"))
        self.assertEqual(self.answers(self.front, 1)[0].kind, ANSWER)
        self.front.sendall(request(2, "/wait"))
        self.await_waiting()
        extend_deadline, write = self.kept
        extend_deadline(60)
        with self.assertRaises(AssertionError):
            write(b"late")
        self.go.release()
        (answer,) = self.answers(self.front, 1)
        self.assertEqual((answer.id, answer.kind), (2, ANSWER))

    def test_a_thread_of_the_apps_own_may_ask_for_more_time_and_the_app_stays_interruptible(self):
        self.front.sendall(request(1, "/wait/more-time"))
        self.await_waiting()
        self.slot.app_code.interrupt(1)
        helper = threading.Thread(target=self.extend)
        helper.start()
        helper.join(DEADLINE_S)
        self.go.release()
        self.assertEqual([frame.kind for frame in self.answers(self.front, 2)], [EXTEND, ERROR])

    def test_a_thread_of_the_apps_own_may_ask_for_more_time_while_a_file_is_sent(self):
        read = os.pread
        helper = threading.Thread(target=lambda: self.extend())

        def read_in_two_parts(file, size, offset):
            if offset == 0:
                return read(file, size // 2, 0)
            helper.start()
            helper.join(0.1)  # it waits, or has done harm
            return read(file, size, offset)

        with unittest.mock.patch("os.pread", read_in_two_parts):
            self.front.sendall(request(1, "/file"))
            frames = self.answers(self.front, 4)
        helper.join(DEADLINE_S)
        self.assertEqual({frame.kind for frame in frames}, {HEAD, DATA, EXTEND, END})
        self.assertEqual(b"".join(frame.body for frame in frames), b"x" * 1000)

    def test_who_has_nothing_left_to_send_needs_no_connection(self):
        Slot(0, None, {}, [0], Log(), None).flush()

    def test_a_log_handler_that_fails_takes_neither_the_answer_nor_the_thread_along(self):
        def fail(_message):
            raise RuntimeError("the disk is full")

        self.slot._log.exception = fail
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            self.front.sendall(request(1, "/fails"))
            (answer,) = self.answers(self.front, 1)
        self.assertEqual((answer.id, answer.status), (1, 500))
        self.assertIn("the disk is full", stderr.getvalue())
        self.front.sendall(request(2))
        self.assertEqual(self.answers(self.front, 1)[0].id, 2)

    def test_what_fails_between_two_requests_ends_the_connection_not_the_thread(self):
        with unittest.mock.patch.object(slot, "run", side_effect=MemoryError):
            self.front.sendall(request(1))
            self.assertEqual(self.front.recv(1), b"")
        self.assertEqual(self.slot._log.lines, ["Error between two requests"])
        self.assertEqual(self.asked_to_leave, ["hit by an error between two requests"])
        front = self.connect()
        front.sendall(request(2))
        self.assertEqual(self.answers(front, 1)[0].id, 2)

    def test_an_app_that_keeps_a_view_of_the_body_has_it_to_itself(self):
        self.front.sendall(request(1, "/view", b"body"))
        self.assertEqual(self.answers(self.front, 1)[0].body, b"/view")
        self.front.sendall(request(2))
        self.assertEqual(self.answers(self.front, 1)[0].id, 2)
        self.assertEqual(bytes(self.kept), b"body")

    def test_an_app_that_closes_its_descriptor_ends_the_connection_not_the_thread(self):
        self.front.sendall(request(1, "/closes"))
        self.assertEqual(self.front.recv(1), b"")
        # The end comes when the app closes it; the thread notices behind that, and would close a pipe of `again` with this number.
        self.await_abandoned(self.front.connection)
        self.front.close()
        again = self.connect()
        again.sendall(request(2, "/again"))
        self.assertEqual(split_frames(again.recv(65536))[0].kind, ANSWER)
        again.close()

    def test_a_connection_that_is_not_taken_yet_does_not_keep_a_thread_that_is_to_leave(self):
        slot = Slot(0, self.app, {}, [0], Log(), lambda why: None)
        front = Front()
        self.addCleanup(front.close)
        slot.connect(front.connection)
        slot.leave()
        thread = threading.Thread(target=slot.serve_forever, daemon=True)
        thread.start()
        thread.join(DEADLINE_S)
        self.assertFalse(thread.is_alive())

    def test_an_app_that_puts_a_file_in_the_place_of_its_descriptor_ends_the_connection(self):
        self.front.sendall(request(1, "/null"))
        self.assertEqual(self.answers(self.front, 1)[0].kind, ANSWER)
        self.assertEqual(self.front.recv(1), b"")
        self.front.close()
        again = self.connect()
        again.sendall(request(2))
        self.assertEqual(self.answers(again, 1)[0].id, 2)

    @unittest.skipUnless(hasattr(os, "SCHED_BATCH"), "Linux")
    def test_a_thread_lets_others_finish_when_it_is_woken(self):
        self.front.sendall(request(1, "/scheduled"))
        self.assertEqual(self.answers(self.front, 1)[0].body, b"%d" % os.SCHED_BATCH)

    def test_requests_run_in_order_and_are_said_to_have_begun(self):
        self.front.sendall(b"".join(request(number, f"/{number}") for number in range(1, 21)))
        answers = self.answers(self.front, 20)
        self.assertEqual([frame.id for frame in answers], list(range(1, 21)))
        self.assertEqual([frame.body for frame in answers], [b"/%d" % number for number in range(1, 21)])
        self.assertEqual(self.seen_begun, list(range(1, 21)))

    def test_leaving_while_a_connection_is_taken_up_ends_the_thread(self):
        get = self.slot._connections.get

        class LeavesFirst:
            put = self.slot._connections.put

            @staticmethod
            def get():
                connection = get()
                if connection is not None:
                    self.slot.leave()  # before the thread has made the connection known
                return connection

        self.slot._connections = LeavesFirst
        self.front.close()  # the thread takes up the next one
        self.connect(until_ready=False)
        second = self.connect(until_ready=False)
        self.thread.join(DEADLINE_S)
        self.assertFalse(self.thread.is_alive())
        second.close()

    def test_a_lone_answer_leaves_at_once(self):
        self.front.sendall(request(1, "/a"))
        self.assertEqual(self.answers(self.front, 1)[0].kind, ANSWER)

    def test_an_iterator_whose_end_follows_at_once_is_a_whole_answer(self):
        self.slot.tail.is_short = True
        self.front.sendall(request(1, "/pieces"))
        answer = self.answers(self.front, 1)[0]
        self.assertEqual((answer.kind, answer.status, answer.body), (ANSWER, 200, b"body"))

    def test_an_answer_that_waits_for_its_end_is_sent_when_asked_for(self):
        self.slot.tail.is_short = True
        self.front.sendall(request(1, "/pieces/wait"))
        self.await_waiting()
        self.assertEqual(self.slot.take_back(), [])
        head = self.answers(self.front, 1)[0]
        self.assertEqual((head.kind, head.body), (HEAD, b"body"))
        self.go.release()
        self.assertEqual(self.answers(self.front, 1)[0].kind, END)

    def test_a_request_whose_client_left_before_it_began_is_not_run_and_forgotten(self):
        self.front.sendall(request(1, "/wait") + request(2, "/never") + request(3, "/next"))
        self.await_waiting()
        self.slot.cancel(2)
        self.go.release()
        self.assertEqual([frame.kind for frame in self.answers(self.front, 3)], [ANSWER, ERROR, ANSWER])
        self.assertEqual(self.ran, ["/wait", "/next"])
        self.assertEqual(self.slot.cancelled, set())

    def test_clients_that_are_known_to_have_left_too_late_are_forgotten(self):
        self.front.sendall(request(5000, "/wait"))
        self.await_waiting()
        self.slot.cancel(5000)
        for late in range(1, 4000):
            self.slot.cancel(late)
        self.assertLessEqual(len(self.slot.cancelled), 1000)
        self.assertIn(5000, self.slot.cancelled)

    def test_take_back_gives_what_has_not_begun_and_sends_what_is_ready(self):
        self.front.sendall(request(1, "/fast") + request(2, "/wait") + request(3, "/never") + request(4, "/never"))
        self.await_waiting()
        self.assertEqual(self.slot.take_back(), [3, 4])
        self.assertEqual([frame.id for frame in self.answers(self.front, 1)], [1])
        self.assertEqual(self.begun[0], 2)
        self.go.release()
        self.assertEqual([frame.id for frame in self.answers(self.front, 1)], [2])
        self.front.sendall(request(5, "/last"))
        self.assertEqual([frame.id for frame in self.answers(self.front, 1)], [5])
        self.assertEqual(self.ran, ["/fast", "/wait", "/last"])

    def test_take_back_empties_the_pipe_too(self):
        self.front.sendall(request(1, "/wait"))
        self.await_waiting()
        self.front.sendall(request(2, "/never") + request(3, "/never"))
        self.assertEqual(self.slot.take_back(), [2, 3])
        self.go.release()
        self.assertEqual([frame.id for frame in self.answers(self.front, 1)], [1])
        self.assertEqual(self.ran, ["/wait"])

    def test_take_back_leaves_a_frame_of_which_only_a_part_has_come(self):
        self.front.sendall(request(1, "/wait"))
        self.await_waiting()
        cut = request(3, "/later")
        self.front.sendall(request(2, "/never") + cut[:25])
        self.assertEqual(self.slot.take_back(), [2])
        self.front.sendall(cut[25:])
        self.go.release()
        self.assertEqual([frame.id for frame in self.answers(self.front, 2)], [1, 3])

    def test_take_back_twice_gives_nothing_the_second_time(self):
        self.front.sendall(request(1, "/wait") + request(2, "/never"))
        self.await_waiting()
        self.assertEqual(self.slot.take_back(), [2])
        self.assertEqual(self.slot.take_back(), [])

    def test_take_back_of_an_idle_slot(self):
        self.front.sendall(request(1))
        self.answers(self.front, 1)
        self.assertEqual(self.slot.take_back(), [])
        self.front.sendall(request(2))
        self.assertEqual(self.answers(self.front, 1)[0].id, 2)

    def test_each_request_is_either_answered_or_taken_back(self):
        answered, taken = [], []
        asked = threading.Event()

        def ask():
            while not asked.is_set():
                taken.extend(self.slot.take_back())

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            for first in range(1, 2001, 20):
                self.front.sendall(b"".join(request(number, "/x") for number in range(first, first + 20)))
                # The last one of each batch is answered or taken: then there is nothing under way.
                while len(answered) + len(taken) < first + 19:
                    self.front.setblocking(False)
                    try:
                        data = self.front.recv(65536)
                    except BlockingIOError:
                        continue
                    finally:
                        self.front.settimeout(DEADLINE_S)
                    while True:
                        try:
                            answered.extend(frame.id for frame in split_frames(data))
                            break
                        except (AssertionError, struct.error):
                            data += self.front.recv(65536)
        finally:
            asked.set()
            asker.join(DEADLINE_S)
        self.assertEqual(sorted(answered + taken), list(range(1, 2001)))
        self.assertEqual(len(self.ran), len(answered))

    def test_a_new_connection_waits_for_what_runs_for_the_first(self):
        self.front.sendall(request(1, "/wait") + request(2, "/never"))
        self.await_waiting()
        self.front.close()
        second = self.connect(until_ready=False)
        second.setblocking(False)
        self.assertRaises(BlockingIOError, second.recv, 1)  # the thread is busy for the first one
        second.settimeout(DEADLINE_S)
        self.go.release()
        self.await_ready(second)
        second.sendall(request(3, "/again"))
        self.assertEqual([frame.id for frame in self.answers(second, 1)], [3])
        self.assertEqual(self.ran[0], "/wait")
        self.assertEqual(self.ran[-1], "/again")

    def test_a_part_of_a_frame_does_not_leak_into_the_next_connection(self):
        self.front.sendall(request(1, "/a") + request(2, "/lost")[:30])
        self.answers(self.front, 1)
        self.front.close()
        second = self.connect()
        second.sendall(request(3, "/b"))
        self.assertEqual([frame.body for frame in self.answers(second, 1)], [b"/b"])

    def test_leaving_finishes_what_runs(self):
        self.front.sendall(request(1, "/wait"))
        self.await_waiting()
        self.slot.leave()
        self.go.release()
        self.assertEqual([frame.id for frame in self.answers(self.front, 1)], [1])
        self.thread.join(DEADLINE_S)
        self.assertFalse(self.thread.is_alive())

    def test_a_file_that_shrinks_ends_the_connection_not_the_thread(self):
        self.front.sendall(request(1, "/shrinks"))
        data = b""
        while piece := self.front.recv(65536):
            data += piece
        # A whole HEAD, then a DATA of 1000 bytes that ends after 10, and no END behind it.
        start = data.index(b"1000\r\n") + 6
        self.assertEqual([frame.kind for frame in split_frames(data[:start])], [HEAD])
        self.assertEqual(struct.unpack_from("<IB", data, start), (1000, DATA))
        self.assertEqual(data[start + 20 :], b"x" * 10)
        second = self.connect()
        second.sendall(request(2, "/next"))
        self.assertEqual(self.answers(second, 1)[0].body, b"/next")

    def test_a_signals_handler_that_fails_in_the_midst_of_an_answer_ends_the_connection_not_the_thread(self):
        def write_some(descriptor, data):
            if len(data) < 1000:
                return os.write(descriptor, data)
            os.write(descriptor, data[:10])
            raise KeyError("of a handler of the app's")

        with unittest.mock.patch("nunicorn_worker.pipes.write", write_some):
            self.front.sendall(request(1, "/" + 1000 * "x"))
            self.assertEqual(len(self.front.recv(2000, socket.MSG_WAITALL)), 10)
            self.front.close()
            second = self.connect()
        with unittest.mock.patch("os.pread", side_effect=KeyError("of a handler of the app's")):
            second.sendall(request(2, "/file"))
            head = second.recv(2000, socket.MSG_WAITALL)
            self.assertEqual(struct.unpack_from("<IB", head, len(head) - 20), (1000, DATA))
            second.close()
            third = self.connect()
        self.assertEqual(self.log.lines, 2 * ["Error while an answer was sent"])
        third.sendall(request(3, "/next"))
        self.assertEqual(self.answers(third, 1)[0].body, b"/next")


if __name__ == "__main__":
    unittest.main()
