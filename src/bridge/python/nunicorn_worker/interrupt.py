"""Interrupts a thread that has run into --timeout: inside the app's own code, and nowhere else.

A thread is interruptible between `enter` and `leave`, that is inside `app()`, `next()` and `close()`. No exception may hit
it while it writes a frame or holds a lock of ours. The main thread is interrupted by a signal, whose handler raises: that
ends a sleep, a system call, a regular expression. Other threads get an asynchronous exception, which reaches them at their
next bytecode. Code that holds the interpreter's lock in C is out of reach for both.
"""

import ctypes
import signal
import sys
import threading
import traceback
from _thread import get_ident
from time import sleep

INTERRUPT_SIGNAL = signal.SIGURG  # ignored by default: a stray one does no harm

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)


class RequestTimeout(KeyboardInterrupt):
    """Raised in the app when its request has run into --timeout.

    Not an Exception, so that few handlers swallow it. A KeyboardInterrupt, because that is what libraries are prepared for that
    something from outside ends: psycopg cancels the query and can use its connection again, asyncio leaves the event loop.
    """

    def __str__(self):  # what trackers of errors show; the interpreter makes it without arguments
        return "the request ran into --timeout"


def app_stack(frame):
    """Where a thread is, innermost call last: in the app, or whatever the app has called. All frames, if it is in the server."""
    lines = traceback.extract_stack(frame)
    ours = [at for at, line in enumerate(lines) if "nunicorn_worker" in line.filename]
    return "".join(traceback.format_list(lines[ours[-1] + 1 :] or lines if ours else lines)).rstrip("\n")


class Interruptible:
    """What one thread runs, and how it is interrupted there."""

    def __init__(self):
        self._request = 0  # the request whose app code runs, 0 outside of it
        self._wanted = 0  # the request that is to be interrupted
        self._setting = False  # the control thread is between looking and setting the exception
        self._thread = 0
        self._is_main = False

    def bind(self):
        """Called by the thread itself, once."""
        self._thread = get_ident()
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            signal.signal(INTERRUPT_SIGNAL, self._signalled)

    def is_here(self):
        """Whether it is this thread that calls."""
        return get_ident() == self._thread

    def was_interrupted(self):
        """Whether a request has been, or was to be."""
        return self._wanted != 0

    def enter(self, request_id):
        """The app's code begins. Raises RequestTimeout if its time is over already."""
        self._request = request_id
        if self._wanted == request_id:
            self.leave()  # `interrupt` may have seen it begin, too
            raise RequestTimeout

    def leave(self):
        """The app's code has ended: from the return of this call on, nothing interrupts. Returns the request, or 0."""
        request_id = 0
        while True:
            try:
                request_id = self._request or request_id
                # First this, then the look at _wanted; `interrupt` does it the other way round. So one sees the other.
                self._request = 0
                if self._wanted == request_id and request_id and not self._is_main:
                    self._take()
                return request_id
            except RequestTimeout:
                continue

    def _take(self):
        """Has an exception that may still be on its way be raised here."""
        while self._setting:
            sleep(0)
        # Taking it back (with NULL) would leave the interpreter looking for it from then on: CPython up to 3.12 clears its
        # flag only when one is raised. This takes the place of the other one, if that has not been raised.
        try:
            if _set_async_exc(self._thread, ctypes.py_object(RequestTimeout)):
                while True:
                    sleep(0)
        except RequestTimeout:
            pass

    def _signalled(self, _number, _frame):
        if self._request and self._request == self._wanted:
            self._request = 0
            raise RequestTimeout

    # ---- called by the control thread

    def interrupt(self, request_id):
        """Ends what the app does for this request, now or as soon as its own code goes on."""
        self._setting = True
        self._wanted = request_id
        if self._is_main:
            signal.pthread_kill(self._thread, INTERRUPT_SIGNAL)
        elif self._request == request_id:
            _set_async_exc(self._thread, ctypes.py_object(RequestTimeout))
        self._setting = False

    def stack(self):
        """Where the thread is, as `app_stack` shows it."""
        return app_stack(sys._current_frames().get(self._thread))
