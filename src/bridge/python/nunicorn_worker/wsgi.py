"""One request through a WSGI app (PEP 3333), from the parts of a REQUEST frame to the frames of its answer."""

import os
import re
import stat
import sys
import time
from io import BytesIO
from types import GeneratorType
from urllib.parse import unquote_to_bytes

from .frames import ANSWER, BODY_IN_FILE, CUT, DATA, END, ERROR, EXTEND, HEAD, HEADER, HINTS, LAST, PATH_ENCODED
from .interrupt import RequestTimeout

# A body up to this size travels with its head in one ANSWER frame.
MAX_ANSWER_BYTES = 64 * 1024
# A file goes out in DATA frames of this size, so that a client that left is noticed between two.
FILE_FRAME_BYTES = 256 * 1024

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_STATUS = re.compile(r"([1-9][0-9]{2})(?: ([ \t\x21-\x7e\x80-\xff]*))?")

# Of one hop, or the front's own: not the app's to say (RFC 9110, 7.6.1). PEP 3333 knows no trailers.
_DROPPED = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer trailers transfer-encoding upgrade server date".split()
)

# Most headers of an app repeat from answer to answer: each (name, value) pair is checked once. For each the result of _check_header.
_known_headers: "dict[tuple[str, str], tuple[str, int]]" = {}
_status_text: "dict[str, tuple[int, str]]" = {}
_CACHE_LIMIT = 4096
# Of names and values: a client may choose what an app redirects to.
_CACHE_CHARACTERS = 1024 * 1024
_header_characters = 0

_MOST_U32 = 0xFFFFFFFF

_perf_counter = time.perf_counter
_pack = HEADER.pack


class ClientGone(Exception):
    """The client left: nobody reads what the app still yields."""


def _check_status(status):
    if type(status) is not str:
        raise TypeError("status must be a str such as '200 OK', not %r" % (status,))
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ValueError("status must be three digits, a space and a reason, such as '200 OK', not %r" % (status,))
    result = (int(match.group(1)), (match.group(2) or "") + "\r\n")
    if len(_status_text) >= _CACHE_LIMIT:
        _status_text.clear()
    _status_text[status] = result
    return result


def _check_header(header):
    """The text of a header in a head block, empty if it is dropped, and the length that it declares, or -1.

    Raises ValueError or TypeError.
    """
    name, value = header
    if not isinstance(name, str):
        raise TypeError("header name must be a str, not %r" % (name,))
    if not isinstance(value, str):
        raise TypeError("value of header %r must be a str, not %r" % (name, value))
    if _TOKEN.fullmatch(name) is None:
        raise ValueError("invalid header name %r" % (name,))
    if _VALUE.fullmatch(value) is None:
        raise ValueError("invalid value of header %r: %r" % (name, value))
    lower_name, stripped = name.lower(), value.strip(" \t")
    length = -1
    if lower_name == "content-length":
        if not (stripped.isascii() and stripped.isdigit()):
            raise ValueError("invalid Content-Length %r" % (value,))
        length = int(stripped)
    result = ("" if lower_name in _DROPPED else "%s: %s\r\n" % (name, stripped), length)
    global _header_characters
    _header_characters += len(name) + len(value)
    if len(_known_headers) >= _CACHE_LIMIT or _header_characters > _CACHE_CHARACTERS:
        _known_headers.clear()
        _header_characters = len(name) + len(value)
    _known_headers[(name, value)] = result
    return result


def _without_length(text):
    """A head block without its Content-Length."""
    reason, *lines = text.split("\r\n")
    return "\r\n".join([reason, *(line for line in lines if not line.lower().startswith("content-length:"))])


class FileWrapper:
    """wsgi.file_wrapper: a file that is sent by the kernel where it can be, else read block by block."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


class ReadFileWrapper(FileWrapper):
    """The same with --no-sendfile: always read block by block, because `run` takes no subclass for a FileWrapper."""


class Answer:
    """The answer to one request: what `start_response` was told and how much of it is on its way."""

    __slots__ = "begun bodiless body_sent environ_told head held id last_sent length method over slot status".split()

    def __init__(self, slot, request_id, method):
        self.slot = slot
        self.id = request_id
        self.method = method
        self.head = None
        self.begun = False  # the head is on its way
        self.held = None  # the header of the HEAD frame that gathers with the whole body, as long as END is awaited
        self.body_sent = 0
        self.last_sent = False
        self.environ_told = True  # False: what the access log shows of the environ is told at the end, before LAST
        self.over = False  # the request has ended: the thread's connection is the next one's

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.head is not None:
            raise AssertionError("start_response was called twice; a second call needs exc_info")
        headers = list(headers)
        try:
            code, text = _status_text[status]
        except (KeyError, TypeError):
            code, text = _check_status(status)
        length = -1
        twice = False
        for header in headers:
            try:
                line, declared = _known_headers[header]
            except (KeyError, TypeError):
                line, declared = _check_header(header)
            text += line
            if declared >= 0:
                if length not in (-1, declared):
                    raise ValueError("two different Content-Length headers")
                twice = length >= 0
                length = declared
        self.bodiless = code < 200 or code == 204 or code == 304 or self.method == "HEAD"
        if length >= 0 and (twice or code < 200 or code == 204):  # RFC 9110, 8.6
            text = _without_length(text)
            if code >= 200 and code != 204:
                text += "Content-Length: %d\r\n" % length
        self.status = code
        self.length = length
        self.head = text
        return self.write

    def write(self, data):
        """Sends a piece of the body at once; raises ClientGone when nobody is there to read it."""
        if not isinstance(data, bytes):
            raise TypeError("the body must be bytes, not %s" % type(data).__name__)
        if self.head is None:
            raise AssertionError("the body was sent before start_response was called")
        if self.over:
            raise AssertionError("write() was called when the request had ended")
        if self.id in self.slot.cancelled:
            raise ClientGone
        interruptible = self.slot.app_code.leave()
        self._write(data)
        if interruptible:
            self.slot.app_code.enter(interruptible)

    def _write(self, data):
        data = self._allowed(data)
        complete = self.bodiless or self.body_sent == self.length
        last = LAST if complete and self.environ_told else 0
        if not self.begun:
            self.begun = True
            self._begin(data, complete, last)
        elif data:
            self.slot.send(_pack(len(data), DATA, last, 0, self.id, 0, 0), data)
        else:
            return
        if last:
            self.last_sent = True

    def _begin(self, data, complete, last):
        head = self.head.encode("latin-1")
        if last and len(data) > MAX_ANSWER_BYTES:
            # The front handles a HEAD that is LAST when it has all of it, DATA as it comes.
            header = _pack(len(head), HEAD, 0, self.status, self.id, len(head), 0)
            pieces = (header, head, _pack(len(data), DATA, last, 0, self.id, 0, 0), data)
        else:
            header = _pack(len(head) + len(data), HEAD, last, self.status, self.id, len(head), 0)
            pieces = (header, head, data)
        if complete and self.slot.tail.is_short:
            # END is about to follow, and makes an ANSWER of it.
            self.slot.out += pieces
            if len(data) <= MAX_ANSWER_BYTES:
                self.held = header
        else:
            self.slot.send(*pieces)

    def _allowed(self, data):
        """The part of a piece that may be sent: nothing without a body, no more than Content-Length."""
        if self.bodiless:
            return b""
        self.body_sent += len(data)
        if 0 <= self.length < self.body_sent:
            data = data[: len(data) - (self.body_sent - self.length)]
            self.body_sent = self.length
        return data

    def hints(self, headers):
        """environ['wsgi.early_hints']: sends 103 Early Hints (RFC 8297)."""
        if self.begun:
            return
        head = "".join([_check_header(header)[0] for header in headers]).encode("latin-1")
        self._send_beside(_pack(len(head), HINTS, 0, 103, self.id, len(head), 0), head)

    def extend_deadline(self, seconds):
        """environ['nunicorn.extend_deadline']: the request may run for this long from now, whatever --timeout says."""
        milliseconds = int(min(max(seconds * 1000, 0), _MOST_U32))
        self._send_beside(_pack(0, EXTEND, 0, 0, self.id, 0, milliseconds))

    def _send_beside(self, *pieces):
        if self.over:
            return
        app_code = self.slot.app_code
        # A thread of the app's own may ask for more time: nobody interrupts that one here.
        interruptible = app_code.is_here() and app_code.leave()
        self.slot.send(*pieces)
        if interruptible:
            app_code.enter(interruptible)

    def declare_length(self, size):
        """Adds a Content-Length, where the app gave none and the size of the body is known before it is sent."""
        if self.length < 0 and not self.bodiless:
            self.length = size
            self.head += "Content-Length: %d\r\n" % size

    def whole(self, body, app_us):
        """Queues the whole answer, known to be complete: one frame, with a Content-Length if the app gave none."""
        self.declare_length(len(body))
        if self.bodiless:
            body = b""
        elif self.length < len(body):
            body = body[: self.length]
        elif self.length > len(body):
            self.write(body)
            self.end(app_us)
            return
        self.begun = True
        head = self.head.encode("latin-1")
        self.slot.out += (
            _pack(len(head) + len(body), ANSWER, 0, self.status, self.id, len(head), app_us),
            head,
            body,
        )

    def end(self, app_us, cut=False):
        """Queues the end of an answer that went out in pieces."""
        if not self.begun:
            self.write(b"")
        short = self.length > self.body_sent and not self.bodiless
        if self.held is not None and not cut:
            length, _, _, status, request_id, head, _ = HEADER.unpack(self.held)
            if self.slot.replace(self.held, _pack(length, ANSWER, 0, status, request_id, head, app_us)):
                return
        self.slot.out.append(_pack(0, END, CUT if cut or short else 0, 0, self.id, 0, app_us))

    @property
    def complete(self):
        """The client knows that it has the whole body, though END has not been sent."""
        return self.last_sent or (self.begun and (self.bodiless or 0 <= self.length == self.body_sent))

    def last(self):
        """Ends the client's answer, while the thread stays busy."""
        if not self.last_sent and self.held is None:
            self.last_sent = True
            self._send_beside(_pack(0, DATA, LAST, 0, self.id, 0, 0))

    def send_file(self, filelike):
        """Sends the rest of a regular file, read by its descriptor. False if this cannot be done with it."""
        try:
            fd = filelike.fileno()
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return False
            offset = filelike.tell()
        except (AttributeError, OSError, ValueError):
            return False
        left = max(status.st_size - offset, 0)
        self.slot.app_code.leave()
        if not self.begun:
            self.declare_length(left)
            self.write(b"")
        if self.bodiless:
            return True
        if self.length >= 0:
            left = min(left, self.length - self.body_sent)
        while left > 0:
            if self.id in self.slot.cancelled:
                raise ClientGone
            size = min(left, FILE_FRAME_BYTES)
            self.body_sent += size
            last = LAST if self.body_sent == self.length else 0
            self.slot.send_file_frame(_pack(size, DATA, last, 0, self.id, 0, 0), fd, offset, size)
            if last:
                self.last_sent = True
            offset += size
            left -= size
        return True


def _close(result, answer, slot):
    """Calls the app's close(). A client that has the whole body neither waits for it nor is bothered with its errors."""
    try:
        result.close()
    except RequestTimeout:
        _finish_in_django(slot)
        raise
    except Exception:
        if not answer.complete:
            raise
        slot.log_exception("Error in close() of the answer")


def _finish_in_django(slot):
    """Sends the signal that Django sends in the close() of its answer, where there is none, or that was interrupted.

    It gives the thread's database connections back. Idle threads that keep them are soon all that a small pool has.
    """
    django = sys.modules.get("django.core.handlers.wsgi")
    if django is None or not django.settings.configured:  # what watches apps of all kinds may have imported it
        return
    try:
        django.signals.request_finished.send(sender=django.WSGIHandler)
    except Exception:
        slot.log_exception("Error in a receiver of request_finished")


def run(app, base_environ, slot, frame):
    """Runs one request through `app`; its answer is in `slot.out` or on its way. Raises only what is no error of the app."""
    request_id, flags, block, body = frame
    environ = base_environ.copy()
    parts = iter(str(block, "latin-1").split("\0"))
    environ.update(zip(parts, parts))
    if flags & PATH_ENCODED:
        environ["PATH_INFO"] = unquote_to_bytes(environ["PATH_INFO"].encode("latin-1")).decode("latin-1")
    answer = Answer(slot, request_id, environ["REQUEST_METHOD"])
    environ["wsgi.early_hints"] = answer.hints
    environ["nunicorn.extend_deadline"] = answer.extend_deadline
    try:
        _run(app, environ, answer, slot, flags, body)
    except RequestTimeout:
        # It came while _run was handling another error, and cannot come again.
        slot.app_code.leave()
        _fail(answer, slot, 0)
    finally:
        answer.over = True


def _open_body(path):
    """The file of a body. Raises ClientGone if the front has removed it: its word that the client has left comes another way."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        if os.path.isdir(os.path.dirname(path)):
            raise ClientGone from None
        raise


def _close_input(source):
    """An app that keeps a view of the body, or has taken the file away, has it to itself."""
    try:
        source.close()
    except (BufferError, OSError, ValueError):
        pass


def _app_us(started, ended):
    # What fits into a frame is 72 minutes, and a stream may take longer.
    return min(int((ended - started) * 1e6), _MOST_U32)


def _fail(answer, slot, app_us):
    if answer.begun:
        answer.end(app_us, cut=True)
    else:
        slot.out.append(_pack(0, ERROR, 0, 500, answer.id, 0, app_us))


def _run(app, environ, answer, slot, flags, body):
    app_code = slot.app_code
    source = result = None

    started = written = _perf_counter()
    try:
        environ["wsgi.input"] = source = _open_body(body) if flags & BODY_IN_FILE else BytesIO(body)
        app_code.enter(answer.id)
        result = app(environ, answer.start_response)
        kind = type(result)
        if (kind is list or kind is tuple) and not answer.begun and answer.head is not None:
            app_code.leave()
            size = sum(map(len, result))
            if size <= MAX_ANSWER_BYTES:
                answer.whole(b"".join(result), _app_us(started, _perf_counter()))
                return
            answer.declare_length(size)
        try:
            if not (kind is FileWrapper and answer.head is not None and answer.send_file(result.filelike)):
                for piece in result:
                    if piece or not isinstance(piece, bytes):
                        answer.write(piece)
                        written = _perf_counter()
                        if answer.bodiless:
                            break  # nobody gets the others, and a stream may have them for ever
                if not answer.begun:
                    answer.write(b"")
            # The close() of a generator that has come to its end does nothing.
            if kind is not GeneratorType and hasattr(result, "close") and answer.body_sent >= answer.length:
                answer.last()
        finally:
            if hasattr(result, "close"):
                _close(result, answer, slot)
        app_code.leave()
        ended = _perf_counter()
        slot.tail.observe(ended - written)
        answer.end(_app_us(started, ended))
    except slot.Broken:
        raise
    except BaseException as error:  # SystemExit, KeyboardInterrupt: a request must not take its neighbours along
        app_code.leave()
        app_us = _app_us(started, _perf_counter())
        if not isinstance(error, (ClientGone, RequestTimeout)):
            slot.log_exception(f"Error handling request {environ.get('REQUEST_METHOD', '')} {environ.get('RAW_URI', '')}")
        if result is None:
            _finish_in_django(slot)
        _fail(answer, slot, app_us)
    finally:
        if source is not None:
            _close_input(source)
