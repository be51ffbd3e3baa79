"""The pipes between a thread and a front: requests come on one, answers go on the other.

They are named ones, since Node takes no descriptor from another process, and have their names only until both sides have opened
them. The front asks for them by a socket, which stays open: its end is the end of the front.
"""

import os
from _thread import allocate_lock
from fcntl import fcntl
from os import close, write  # an app may put others in their place
from select import PIPE_BUF, POLLIN, POLLOUT, poll

# Each use of a named pipe, also of one that has lost its name, notes its time in the file system: a disk that hangs would hold it up.
_MEMORY = "/dev/shm"
# What waits there: answers in large pieces for a front that is busy, and requests that were sent ahead with their bodies.
_PIPE_BYTES = 256 * 1024
_F_SETPIPE_SZ = 1031  # of Linux; in Python from 3.10 on
_FILE_PIECE_BYTES = 64 * 1024


def offer(socket_path):
    """An Offer in memory, where the system has a folder for that, else beside the socket of the worker. Raises OSError."""
    folder, socket_name = os.path.split(socket_path)
    name = f"{os.path.splitext(socket_name)[0]}-{os.urandom(8).hex()}"
    try:
        # By the beginning of these names the master clears up after a worker that was killed.
        return Offer(os.path.join(_MEMORY, f"{os.path.basename(folder)}-{name}"))
    except OSError:
        return Offer(os.path.join(folder, name))


class Offer:
    """Pipes that a front may open: `PATH.requests` to write and `PATH.answers` to read. Raises OSError."""

    def __init__(self, path):
        self.path = path
        self._names = [path + ".requests", path + ".answers"]
        self._open = []
        try:
            for name in self._names:
                os.mkfifo(name, 0o600)
                self._open.append(os.open(name, os.O_RDWR))
            # To write only, which needs a reader to open it. Held on to, that would be one when the front is gone: also in a fork.
            self._open.append(os.open(self._names[1], os.O_WRONLY))
            close(self._open.pop(1))
        except OSError:
            self.withdraw()
            raise
        try:
            for descriptor in self._open:
                fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # this is no Linux, or the user's share of such memory is used up

    def taken(self):
        """The front has opened both: the Connection."""
        requests, answers = self._open
        self._open = []
        self.withdraw()
        return Connection(requests, answers)

    def withdraw(self):
        for descriptor in self._open:
            close(descriptor)
        for name in self._names:
            try:
                os.unlink(name)
            except OSError:
                pass  # somebody has cleared the folder, or the pipe was not made


class Connection:
    """A pair of pipes whose other ends a front has. Its methods are for any thread."""

    def __init__(self, requests, answers):
        self.requests = requests  # to be read; `end` writes to it
        self.answers = answers
        self.ended = False
        self._lock = allocate_lock()

    def end(self):
        """Nothing is read any more: who waits for a request is woken. Never blocks."""
        with self._lock:
            self.ended = True
            # Where something waits, the reader wakes without; and of a large body it may fill the pipe at any moment.
            if self.requests >= 0 and not self.has_request():
                try:
                    write(self.requests, b"\0")
                except OSError:
                    pass  # an app has closed it, and the reader knows

    def close(self):
        with self._lock:
            self.abandon()

    def abandon(self):
        """Closes what this process has of it; in a fork the lock may be nobody's."""
        descriptors = self.requests, self.answers
        self.requests = self.answers = -1
        for descriptor in descriptors:
            try:
                close(descriptor)
            except OSError:
                pass  # an app has closed it

    def has_request(self):
        return _is_ready(self.requests, POLLIN)

    def send(self, data):
        """Blocks while the front holds back. Raises OSError."""
        sent = write(self.answers, data)
        if sent < len(data):  # a signal came
            rest = memoryview(data)
            while sent < len(rest):
                sent += write(self.answers, rest[sent:])

    def send_what_fits(self, data):
        """Never blocks. Returns how many bytes were sent. Raises OSError."""
        rest = memoryview(data)
        sent = 0
        # With room for anything, a pipe has room for as much as is written in one piece.
        while sent < len(rest) and _is_ready(self.answers, POLLOUT):
            sent += write(self.answers, rest[sent : sent + PIPE_BUF])
        return sent

    def send_file(self, fd, offset, size):
        """Sends some of a file. Returns how many bytes; 0 is its end. Raises OSError."""
        # sendfile(2) would have the pipe for itself while the disk is read, and the front, which reads the pipe, would stand still.
        data = os.pread(fd, min(size, _FILE_PIECE_BYTES), offset)
        self.send(data)
        return len(data)


def _is_ready(descriptor, event):
    one = poll()
    one.register(descriptor, event)
    return bool(one.poll(0))
