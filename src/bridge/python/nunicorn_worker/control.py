"""The control thread: everything a worker hears and says beside its requests.

It waits for the master (leave, abort, reopen the log, ping), for connections from a front, and for the front's word about
single requests (its client left, give back what you have not begun). Messages are JSON objects, one a line.
"""

import hmac
import json
import os
import struct
import sys
import threading
from _thread import RLock, get_ident, start_new_thread
from selectors import EVENT_READ, DefaultSelector
from socket import MSG_WAITALL, socket
from time import sleep

from .frames import CONTROL_CONNECTION, GREETING, SLOT_CONNECTION
from .interrupt import app_stack
from .pipes import offer
from .slot import is_waiting

_AGAIN_SECONDS = 0.05


class Lines:
    """A socket that carries JSON objects, one a line, both ways."""

    def __init__(self, sock):
        self.sock = sock
        self._rest = b""
        self._lock = RLock()  # signal handlers say something too, in the midst of what the main thread says

    def say(self, **message):
        """Sends a message; a peer that is gone is noticed when reading."""
        try:
            with self._lock:
                self.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def hear(self):
        """The messages that have arrived; None at the end of the connection. Blocks if nothing is there."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Control:
    def __init__(self, master, listener, token, slots, worker):
        self._master = master
        self._listener = listener
        self._token = token
        self._slots = slots
        self._worker = worker
        self._selector = DefaultSelector()
        self._selector.register(master.sock, EVENT_READ, self._from_master)
        self._selector.register(listener, EVENT_READ, self._accept)
        self.left = threading.Event()  # the worker was told to go

    def start(self):
        start_new_thread(self._run, ())

    def _run(self):
        threading.current_thread().name = "nunicorn-control"
        while True:
            for key, _ in self._selector.select():
                try:
                    key.data()
                except Exception:
                    self._worker.control_failed()  # pings, and the word to leave, come here later

    def _from_master(self):
        messages = self._master.hear()
        if messages is None:
            os._exit(1)  # the master is gone: nobody needs this worker any more
        for message in messages:
            if message["op"] == "leave":
                self._worker.tell_metrics()
                self._worker.leaving(message["quick"])
                for slot in self._slots:
                    slot.leave()
                self.left.set()
            elif message["op"] == "abort":
                self._worker.abort(self._stacks().rstrip())
            elif message["op"] == "ping":
                self._master.say(op="pong")  # that this thread runs proves that the interpreter's lock is not held
            elif message["op"] == "stacks":
                self._master.say(op="stacks", text=self._stacks())
            elif message["op"] == "metrics":
                self._worker.tell_metrics()
            elif message["op"] == "reopen":
                self._worker.reopen_logs()

    def _stacks(self):
        """Where all threads are but this one, those first that do something."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        busy, idle = [], []
        for ident, frame in sys._current_frames().items():
            name = names.get(ident, ident)
            if is_waiting(frame):
                idle.append("Thread %s waits for a request\n" % name)
            elif ident != get_ident() and not self._only_waits(ident, frame):
                busy.append("Thread %s (most recent call last):\n%s\n" % (name, app_stack(frame)))
        return "\n".join([*sorted(busy), *sorted(idle)])

    def _only_waits(self, ident, frame):
        """Of the main thread: whether the others serve."""
        is_main = ident == threading.main_thread().ident
        return is_main and len(self._slots) > 1 and frame.f_code.co_filename == threading.__file__

    def _accept(self):
        try:
            sock = socket(fileno=self._listener._accept()[0])  # accept() would make one of what is `socket.socket` by now
        except OSError:
            sleep(_AGAIN_SECONDS)  # no descriptor is left, and the connection still waits
            return
        sock.settimeout(1)
        try:
            greeting = sock.recv(GREETING.size, MSG_WAITALL)
            token, kind, number = GREETING.unpack(greeting)
        except (OSError, struct.error):
            sock.close()
            return
        if not hmac.compare_digest(token, self._token):
            sock.close()
        elif kind == SLOT_CONNECTION and number < len(self._slots):
            if self.left.is_set():
                # No thread would take it, and names of pipes would outlive the process. Let go, the front would come again and again.
                self._watch(sock, lambda: self._let_go(sock))
            else:
                self._offer(sock, self._slots[number])
        elif kind == CONTROL_CONNECTION:
            sock.setblocking(True)
            front = Lines(sock)
            self._watch(sock, lambda: self._from_front(front))
        else:
            sock.close()

    def _watch(self, sock, heard):
        try:
            before = self._selector.unregister(sock).fileobj
        except KeyError:
            pass
        else:
            if before is not sock:
                before.detach()  # an app has closed it, and its number is the new one's
        self._selector.register(sock, EVENT_READ, heard)

    def _let_go(self, sock):
        self._selector.unregister(sock)
        sock.close()

    def _offer(self, sock, slot):
        try:
            offered = offer(self._listener.getsockname())
        except OSError as error:
            self._worker.no_pipes(error)
            sleep(_AGAIN_SECONDS)  # the front comes again
            sock.close()
            return
        self._watch(sock, lambda: self._opened(sock, slot, offered))
        try:
            sock.sendall(os.fsencode(offered.path))
        except OSError:
            pass  # the front is gone, as is heard next

    def _opened(self, sock, slot, offered):
        if not _hears(sock):
            offered.withdraw()
            self._let_go(sock)
            return
        connection = offered.taken()
        self._watch(sock, lambda: self._front_gone(sock, connection))
        slot.connect(connection)

    def _front_gone(self, sock, connection):
        if not _hears(sock):
            connection.end()
            self._let_go(sock)

    def _from_front(self, front):
        messages = front.hear()
        if messages is None:
            self._let_go(front.sock)
            return
        for message in messages:
            slot = self._slots[message["slot"]]
            if message["op"] == "cancel":
                slot.cancel(message["id"])
            elif message["op"] == "interrupt":
                front.say(op="stack", slot=slot.number, id=message["id"], stack=slot.app_code.stack())
                slot.app_code.interrupt(message["id"])
            elif message["op"] == "take-back":
                front.say(op="taken", slot=slot.number, ids=slot.take_back())


def _hears(sock):
    """Whether it is a byte that has come, and not the end."""
    try:
        return bool(sock.recv(1))
    except OSError:
        return False
