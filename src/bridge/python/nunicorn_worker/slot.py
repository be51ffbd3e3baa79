"""A thread of a worker: takes requests from its connection to the front, runs them, sends the answers."""

import traceback
from _thread import allocate_lock
from collections import deque
from os import read
from queue import SimpleQueue
from time import perf_counter

from .frames import ERROR, HEADER, READY
from .interrupt import Interruptible
from .process import let_others_finish
from .tail import Tail
from .wsgi import run

_READ_BYTES = 64 * 1024
# While requests that were sent ahead wait, answers that are ready are gathered for at most this long.
_GATHER_SECONDS = 0.0003
# So many requests at most are known to be without a client: a thread holds fewer.
_MOST_CANCELLED = 1000


class Slot:
    """One place where one request runs. `serve_forever` is the thread; the control thread calls the rest."""

    class Broken(Exception):
        """The connection to the front is gone: nobody is there to take an answer."""

    def __init__(self, number, app, base_environ, begun, log, ask_to_leave, wait=None):
        """`ask_to_leave` has the worker replaced. `wait`, if it is not None, waits for a descriptor before that is read."""
        self.number = number
        self.app = app
        self.base_environ = base_environ
        self.begun = begun  # words of 8 bytes shared with the front: the request last begun in each slot
        self._log = log
        self._ask_to_leave = ask_to_leave
        self._wait = wait
        self.cancelled = set()  # ids of requests whose clients left, and of some that are over
        self.app_code = Interruptible()
        self.tail = Tail()
        self.out = []  # pieces of answers that are ready but not sent
        self._ahead = deque()  # requests that have been read but not begun
        self._rest = b""  # the beginning of a frame of which the rest has not been read
        self._connection = None
        self._left = False
        self._connections = SimpleQueue()
        self._read_lock = allocate_lock()
        self._send_lock = allocate_lock()

    def connect(self, connection):
        """Hands over a connection to a front."""
        self._connections.put(connection)

    def abandon(self):
        """In a process that the app forked: closes the connection, which the parent goes on using."""
        if self._connection is not None:
            self._connection.abandon()
        self._connections.put(None)

    def log_exception(self, message):
        """Logs what is being handled. A log handler of the app's own that fails takes neither the answer nor the thread along."""
        try:
            self._log.exception(message)
        except BaseException:
            try:
                traceback.print_exc()
            except Exception:
                pass  # the app has closed stderr

    def serve_forever(self):
        self.app_code.bind()
        let_others_finish()
        while True:
            connection = self._connections.get()
            if connection is None:
                return
            self._connection = connection
            if self._left:
                connection.end()  # leave() came between the last two lines and did not see it
            self.cancelled.clear()  # of the front before
            try:
                if self.app_code.was_interrupted():
                    # Nothing more is to run here, which this front may not know.
                    self._ask_to_leave("left by a front after a request ran into --timeout")
                else:
                    self.send(HEADER.pack(0, READY, 0, 0, 0, 0, 0))
                self._serve()
            except (self.Broken, OSError):
                pass
            except Exception:
                # No memory for a frame, a late signal whose handler raises: the front connects anew until the worker is replaced.
                self.log_exception("Error between two requests")
                self._ask_to_leave("hit by an error between two requests")
            finally:
                with self._read_lock, self._send_lock:
                    self._connection = None
                    connection.close()
                self._ahead.clear()
                self._rest = b""
                self.out.clear()

    def _serve(self):
        # The hot loop: at full speed some ten requests are read, run and answered in each turn.
        ahead, begun, number, out = self._ahead, self.begun, self.number, self.out
        app, base_environ = self.app, self.base_environ
        gather_until = 0.0
        while True:
            if not ahead:
                if out:
                    self.flush()
                with self._read_lock:
                    if not self._read():
                        return
                if len(ahead) > 1:
                    gather_until = perf_counter() + _GATHER_SECONDS
            try:
                frame = ahead.popleft()
            except IndexError:
                continue  # it has been taken back
            begun[number] = frame[0]
            if frame[0] in self.cancelled:
                # Its client has left, and with it what the front kept for it.
                self.cancelled.discard(frame[0])
                out.append(HEADER.pack(0, ERROR, 0, 500, frame[0], 0, 0))
                continue
            run(app, base_environ, self, frame)
            if self.cancelled:
                self.cancelled.discard(frame[0])
            if ahead and perf_counter() > gather_until:
                self.flush()
                gather_until = perf_counter() + _GATHER_SECONDS

    def _read(self, wait=True):
        """Reads what is there into `_ahead`, at least one frame if it is to `wait`. False at the end."""
        connection = self._connection
        data = self._rest
        while not connection.ended:
            try:
                if not wait:
                    if not connection.has_request():
                        break
                elif self._wait:
                    self._wait(connection.requests)
                piece = read(connection.requests, _READ_BYTES)
            except OSError:
                return False
            if connection.ended or not piece:  # nothing is what a file gives that an app has put in the pipe's place
                return False
            data = data + piece if data else piece
            position, size = 0, len(data)
            while size - position >= 20:
                length, _, frame_flags, _, request_id, head, _ = HEADER.unpack_from(data, position)
                end = position + 20 + length
                if end > size:
                    break
                split = position + 20 + head
                self._ahead.append((request_id, frame_flags, data[position + 20 : split], data[split:end]))
                position = end
            if position:
                data = data[position:]
                if wait:
                    break
        self._rest = data
        return not connection.ended

    def flush(self):
        """Sends what has gathered in `out`. Raises Broken."""
        with self._send_lock:
            self._flush()

    def _flush(self, behind=b""):
        out = self.out
        count = len(out)  # a thread of the app's own that asks for more time may add to it meanwhile
        data = b"".join(out[:count]) + behind
        del out[:count]
        if data:  # else another thread has sent it, and the connection may be gone since
            connection = self._connection
            if connection is None:
                raise self.Broken
            try:
                connection.send(data)
            except BaseException as error:
                raise self._broken(error) from error

    def send(self, *pieces):
        """Sends pieces of an answer at once, behind what has gathered. Blocks while the front holds back. Raises Broken."""
        self.out += pieces
        self.flush()

    def replace(self, header, new):
        """Puts another header before the last frame in `out`, of head and body. False if the control thread has sent it."""
        with self._send_lock:
            out = self.out
            if len(out) < 3 or out[-3] is not header:
                return False
            out[-3] = new
            return True

    def send_file_frame(self, header, fd, offset, size):
        """Sends a frame whose payload is `size` bytes of the file `fd`. Raises Broken, also if the file has shrunk."""
        # To its last byte nothing else may leave: a thread of the app's own may ask for more time in the midst of it.
        with self._send_lock:
            self._flush(header)
            try:
                while size > 0:
                    sent = self._connection.send_file(fd, offset, size)
                    if sent == 0:
                        raise self.Broken  # the frame promised more than there is: only the end of the connection can take that back
                    offset += sent
                    size -= sent
            except self.Broken:
                raise
            except BaseException as error:
                raise self._broken(error) from error

    def _broken(self, error):
        """What takes the place of an error in the midst of a frame: only the end of the connection can take back what has been sent of it."""
        if not isinstance(error, OSError):
            self.log_exception("Error while an answer was sent")  # of a signal's handler
        return self.Broken()

    # ---- called by the control thread

    def leave(self):
        """Ends the thread, when it has answered what it runs."""
        self._left = True
        self._connections.put(None)
        connection = self._connection
        if connection is not None:
            connection.end()

    def cancel(self, request_id):
        """The client of a request has left."""
        if len(self.cancelled) >= _MOST_CANCELLED:
            # Most had been answered, or taken back, before this was told of them.
            self.cancelled.intersection_update([self.begun[self.number], *(frame[0] for frame in list(self._ahead))])
        self.cancelled.add(request_id)

    def take_back(self):
        """Empties what was sent ahead and is not begun; returns the ids. Sends the answers that wait. Never blocks."""
        if not self._read_lock.acquire(blocking=False):
            return []  # the thread is reading: it has nothing
        taken = []
        try:
            connection = self._connection
            if connection is not None:
                self._read(wait=False)
            while True:
                try:
                    taken.append(self._ahead.popleft()[0])
                except IndexError:
                    break
            if connection is not None and self._send_lock.acquire(blocking=False):
                try:
                    self._send_what_fits(connection)
                finally:
                    self._send_lock.release()
        finally:
            self._read_lock.release()
        return taken

    def _send_what_fits(self, connection):
        count = len(self.out)
        data = b"".join(self.out[:count])
        try:
            sent = connection.send_what_fits(data)
        except OSError:
            return
        self.out[:count] = [data[sent:]] if sent < len(data) else []


def is_waiting(frame):
    """Whether this is the innermost frame of a thread that waits for a request."""
    return frame.f_code is Slot._read.__code__
