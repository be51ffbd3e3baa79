"""The pipes between a thread and a front, and how a front gets them."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import tempfile
import threading
import unittest
from unittest import mock

from nunicorn_worker.control import Control, Lines
from nunicorn_worker.pipes import Offer
from support import Front

DEADLINE_S = 10
TOKEN = b"0123456789abcdef"


class Pipes(unittest.TestCase):
    def setUp(self):
        self.front = Front()
        self.front.settimeout(DEADLINE_S)
        self.connection = self.front.connection
        self.addCleanup(self.connection.close)
        self.addCleanup(self.front.close)

    def test_names_stay_no_longer_than_they_are_needed(self):
        with tempfile.TemporaryDirectory() as folder:
            offer = Offer(os.path.join(folder, "pipes"))
            self.assertEqual(sorted(os.listdir(folder)), ["pipes.answers", "pipes.requests"])
            offer.taken().close()
            self.assertEqual(os.listdir(folder), [])
            Offer(os.path.join(folder, "pipes")).withdraw()
            self.assertEqual(os.listdir(folder), [])

    def test_only_a_front_reads_answers(self):
        # What this process had open to read, as long as it waits, a fork of the app's would keep.
        with tempfile.TemporaryDirectory() as folder:
            offer = Offer(os.path.join(folder, "pipes"))
            self.addCleanup(offer.withdraw)
            with self.assertRaises(OSError) as raised:
                os.open(os.path.join(folder, "pipes.answers"), os.O_WRONLY | os.O_NONBLOCK)
            self.assertEqual(raised.exception.errno, errno.ENXIO)

    def test_an_offer_that_fails_leaves_nothing_behind(self):
        with tempfile.TemporaryDirectory() as folder:
            before = len(os.listdir("/dev/fd"))
            with mock.patch("os.open", side_effect=OSError(errno.EMFILE, "Too many open files")):
                self.assertRaises(OSError, Offer, os.path.join(folder, "pipes"))
            self.assertEqual(os.listdir(folder), [])
            self.assertRaises(FileNotFoundError, Offer, os.path.join(folder, "gone", "pipes"))
            self.assertLessEqual(len(os.listdir("/dev/fd")), before)

    def test_the_end_wakes_who_waits(self):
        woken = threading.Event()

        def wait():
            os.read(self.connection.requests, 100)
            woken.set()

        thread = threading.Thread(target=wait)
        thread.start()
        self.connection.end()
        self.assertTrue(woken.wait(DEADLINE_S))
        thread.join()
        self.assertTrue(self.connection.ended)

    def test_the_end_wakes_nobody_who_has_something_to_read(self):
        self.front.sendall(b"the beginning of a large body")
        self.connection.end()
        self.assertEqual(os.read(self.connection.requests, 100), b"the beginning of a large body")

    def test_the_end_does_not_wait_for_room(self):
        os.set_blocking(self.connection.requests, False)
        with self.assertRaises(BlockingIOError):
            while True:
                os.write(self.connection.requests, b"x" * 4096)
        os.set_blocking(self.connection.requests, True)
        self.connection.end()
        self.assertTrue(self.connection.has_request())

    def test_what_is_closed_may_be_ended_and_closed(self):
        self.connection.close()
        self.connection.end()
        self.connection.close()
        self.assertEqual(self.front.recv(1), b"")

    def test_an_app_that_has_closed_a_descriptor(self):
        os.close(self.connection.requests)
        self.connection.end()
        self.connection.close()
        self.assertEqual(self.front.recv(1), b"")

    def test_who_sends_hears_that_the_front_is_gone(self):
        self.front.close()
        self.assertRaises(BrokenPipeError, self.connection.send, b"x")
        self.assertRaises(BrokenPipeError, self.connection.send_what_fits, b"x")

    def test_all_is_sent_also_where_a_write_is_cut_short(self):
        with mock.patch("nunicorn_worker.pipes.write", lambda descriptor, data: os.write(descriptor, data[:3])):
            self.connection.send(b"0123456789")
        self.assertEqual(self.front.recv(10, socket.MSG_WAITALL), b"0123456789")

    def test_what_does_not_fit_is_not_waited_for(self):
        data = os.urandom(1_000_000)
        sent = self.connection.send_what_fits(data)
        self.assertGreater(sent, 0)
        self.assertLess(sent, len(data))
        self.assertEqual(self.front.recv(sent, socket.MSG_WAITALL), data[:sent])
        self.assertEqual(self.connection.send_what_fits(b"more"), 4)

    def test_a_file_goes_out(self):
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            self.assertEqual(self.connection.send_file(file.fileno(), 2, 5), 5)
            self.assertEqual(self.connection.send_file(file.fileno(), 7, 5), 3)
            self.assertEqual(self.connection.send_file(file.fileno(), 10, 5), 0)
            self.assertEqual(self.front.recv(8, socket.MSG_WAITALL), b"23456789")
            with mock.patch("os.pread", side_effect=OSError(errno.EIO, "Input/output error")):
                self.assertRaises(OSError, self.connection.send_file, file.fileno(), 0, 5)

    def test_while_a_file_is_read_the_front_can_read_the_pipe(self):
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            with mock.patch("os.sendfile", side_effect=AssertionError("it locks the pipe and then reads the file")):
                self.assertEqual(self.connection.send_file(file.fileno(), 0, 10), 10)


class Worker:
    def __init__(self):
        self.errors = []

    def no_pipes(self, error):
        self.errors.append(error.errno)


class TakingSlot:
    number = 0

    def __init__(self):
        self.connections = []
        self.connected = threading.Semaphore(0)

    def connect(self, connection):
        self.connections.append(connection)
        self.connected.release()


class Handshake(unittest.TestCase):
    """A front that comes to a control thread, whose turns the test makes itself."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "worker.sock")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.path)
        listener.listen()
        master, ours = socket.socketpair()
        self.addCleanup(master.close)
        self.addCleanup(ours.close)
        self.slot, self.worker = TakingSlot(), Worker()
        self.control = Control(Lines(ours), listener, TOKEN, [self.slot], self.worker)
        self.addCleanup(lambda: [self.control._let_go(key.fileobj) for key in list(self.control._selector.get_map().values())])

    def turn(self):
        for key, _ in self.control._selector.select(DEADLINE_S):
            key.data()

    def coming_front(self, path=None):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.settimeout(DEADLINE_S)
        sock.connect(path or self.path)
        sock.sendall(TOKEN + struct.pack("<HH", 1, 0))
        return sock

    def front(self):
        sock = self.coming_front()
        self.turn()
        return sock

    def accepted(self):
        known = {self.control._listener.fileno(), self.control._master.sock.fileno()}
        return [fd for fd in self.control._selector.get_map() if fd not in known]

    def offered(self, sock):
        return sock.recv(4096).decode()

    def opened(self, sock):
        base = self.offered(sock)
        requests = os.open(base + ".requests", os.O_WRONLY | os.O_NONBLOCK)
        answers = os.open(base + ".answers", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, requests)
        self.addCleanup(os.close, answers)
        sock.sendall(b"\1")
        self.turn()
        connection = self.slot.connections[-1]
        self.addCleanup(connection.close)
        return requests, answers, connection

    def test_a_front_that_opens_the_pipes_is_connected(self):
        sock = self.front()
        requests, answers, connection = self.opened(sock)
        os.write(requests, b"request")
        self.assertEqual(os.read(connection.requests, 100), b"request")
        connection.send(b"answer")
        self.assertEqual(os.read(answers, 100), b"answer")
        self.assertEqual(os.listdir(self.folder), ["worker.sock"])
        self.assertFalse(connection.ended)

    def test_the_end_of_the_front_ends_the_connection(self):
        sock = self.front()
        _, _, connection = self.opened(sock)
        sock.close()
        self.turn()
        self.assertTrue(connection.ended)
        self.assertTrue(connection.has_request())

    def test_the_end_of_the_worker_is_told_to_the_front(self):
        _, answers, connection = self.opened(self.front())
        connection.close()
        self.assertTrue(select.select([answers], [], [], DEADLINE_S)[0])
        self.assertEqual(os.read(answers, 1), b"")

    def test_a_front_that_leaves_before_it_has_opened_them(self):
        sock = self.front()
        path = self.offered(sock)
        self.assertTrue(os.path.exists(path + ".requests"))
        sock.close()
        self.turn()
        self.assertEqual(self.slot.connections, [])
        self.assertFalse(os.path.exists(path + ".requests"))
        self.opened(self.front())

    def test_a_worker_that_leaves_makes_no_pipes(self):
        self.control.left.set()
        sock = self.front()
        self.assertFalse(select.select([sock], [], [], 0)[0])
        self.assertEqual(len(self.accepted()), 1)
        sock.close()
        self.turn()
        self.assertEqual(self.accepted(), [])

    def test_two_fronts_at_a_time_get_pipes_of_their_own(self):
        first, second = self.front(), self.front()
        requests, _, connection = self.opened(second)
        first.close()
        self.turn()
        os.write(requests, b"request")
        self.assertEqual(os.read(connection.requests, 100), b"request")

    @unittest.skipUnless(os.access("/dev/shm", os.W_OK), "Linux")
    def test_no_disk_can_hold_up_what_is_sent(self):
        _, _, connection = self.opened(self.front())
        self.assertEqual(os.fstat(connection.requests).st_dev, os.stat("/dev/shm").st_dev)
        self.assertEqual(os.fstat(connection.answers).st_dev, os.stat("/dev/shm").st_dev)

    @mock.patch("nunicorn_worker.pipes._MEMORY", "/nowhere")
    def test_where_nothing_can_be_made_in_memory(self):
        sock = self.front()
        self.assertEqual(len(os.listdir(self.folder)), 3)
        self.opened(sock)
        self.assertEqual(os.listdir(self.folder), ["worker.sock"])

    @mock.patch("nunicorn_worker.pipes._MEMORY", "/nowhere")
    def test_what_cannot_be_made_is_said_and_the_front_let_go(self):
        os.rename(self.folder, self.folder + "-gone")
        self.addCleanup(os.rename, self.folder + "-gone", self.folder)
        sock = self.coming_front(os.path.join(self.folder + "-gone", "worker.sock"))
        self.turn()
        self.assertEqual(sock.recv(1), b"")
        self.assertEqual(self.worker.errors, [errno.ENOENT])

    @mock.patch("nunicorn_worker.pipes._MEMORY", "/nowhere")  # the pipes of the first are not removed
    def test_an_app_that_closes_the_socket_of_a_front_does_not_keep_the_next_one_out(self):
        self.front()
        (accepted,) = self.accepted()
        again = self.coming_front()
        os.close(accepted)
        self.turn()
        self.assertEqual(self.accepted(), [accepted])
        self.opened(again)


if __name__ == "__main__":
    unittest.main()
