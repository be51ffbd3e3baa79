"""The control connection and the control thread."""

import socket
import threading
import time
import unittest

from nunicorn_worker.control import Control, Lines

DEADLINE_S = 10
# A control thread whose master is gone ends its process.
KEPT = []


class SpeakingAgain:
    """A socket on which a signal comes, whose handler says something too."""

    def __init__(self):
        self.lines = None
        self.sent = []

    def sendall(self, data):
        if not self.sent:
            self.sent.append(data)
            self.lines.say(op="second")
        else:
            self.sent.append(data)


class SpokenLines(unittest.TestCase):
    def test_a_signal_handler_may_speak_while_its_thread_speaks(self):
        sock = SpeakingAgain()
        sock.lines = Lines(sock)
        speaker = threading.Thread(target=lambda: sock.lines.say(op="first"), daemon=True)
        speaker.start()
        speaker.join(DEADLINE_S)
        self.assertEqual(sock.sent, [b'{"op": "first"}\n', b'{"op": "second"}\n'])


class Listener:
    """A listening socket at which a connection waits that the system has no descriptor for."""

    def __init__(self, sock):
        self._sock = sock
        self.asked = 0

    def fileno(self):
        return self._sock.fileno()

    def _accept(self):
        self.asked += 1
        raise OSError(24, "Too many open files")


class FailingWorker:
    """It cannot open its logs anew."""

    def __init__(self):
        self.told = threading.Event()
        self.left = threading.Event()

    def reopen_logs(self):
        raise ValueError("the app has closed the log's stream")

    def control_failed(self):
        self.told.set()

    def tell_metrics(self):
        pass

    def leaving(self, quick):
        self.left.set()


class ControlThread(unittest.TestCase):
    def test_it_does_not_spin_while_there_is_no_descriptor(self):
        master, waiting = socket.socketpair()
        self.addCleanup(master.close)
        self.addCleanup(waiting.close)
        listener = Listener(waiting)
        control = Control(Lines(master), listener, b"", [], None)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            control._accept()
        self.assertIn(listener.asked, range(1, 20))

    def test_what_fails_on_one_message_does_not_end_it(self):
        ours, theirs = socket.socketpair()
        waiting, other = socket.socketpair()
        KEPT.extend((theirs, waiting, other))
        worker = FailingWorker()
        Control(Lines(ours), waiting, b"", [], worker).start()
        theirs.settimeout(DEADLINE_S)
        theirs.sendall(b'{"op": "reopen"}\n')
        self.assertTrue(worker.told.wait(DEADLINE_S))
        theirs.sendall(b'{"op": "ping"}\n')
        self.assertEqual(theirs.recv(100), b'{"op": "pong"}\n')
        theirs.sendall(b'{"op": "leave", "quick": false}\n')
        self.assertTrue(worker.left.wait(DEADLINE_S))


if __name__ == "__main__":
    unittest.main()
