"""Layout of the frames on the bridge. `src/bridge/frames.ts` says the same for the front.

Every frame is a header of 20 bytes, little-endian, and a payload::

    u32 length   bytes of payload
    u8  kind     one of the constants below
    u8  flags    bits, by kind
    u16 status   HTTP status of an ANSWER or HEAD, else 0
    u32 id       the request, unique within a front
    u32 head     bytes of the payload that are the head block; the rest is body
    u32 app_us   ANSWER, ERROR, END: microseconds the app ran, 72 minutes at most; else 0

A head block is text in latin-1: of a REQUEST `NAME NUL value NUL NAME ...` (environ entries), of an answer
`reason CRLF name: value CRLF ...`, as they stand in an HTTP message, of HINTS the header lines alone.
"""

import struct

HEADER = struct.Struct("<IBBHIII")

# front -> worker
REQUEST = 1
PATH_ENCODED = 1  # flag: PATH_INFO is still percent-encoded, since it holds %00
BODY_IN_FILE = 2  # flag: the body part is the path of a file that holds the body

# worker -> front
ANSWER = 2  # the whole answer
HEAD = 3  # the head of an answer that DATA and END follow, and its first piece
LAST = 1  # flag of HEAD and DATA: the body is complete with this piece, END follows when the app has cleaned up
DATA = 4  # a piece of the body
END = 5  # the end of an answer begun with HEAD
CUT = 1  # flag of END: the answer is cut short, the client's connection must break
ERROR = 6  # the app failed before its head was sent: the front answers 500
HINTS = 7  # 103 Early Hints
READY = 9  # the thread has taken the connection and runs nothing
EXTEND = 8  # the app asks for more time from now on: app_us, here milliseconds
ENVIRON = 10  # what the access log shows of the environ: NAME NUL value ..., in lower case

# The first bytes of a connection from a front: token, kind of connection, slot number.
GREETING = struct.Struct("<16sHH")
SLOT_CONNECTION = 1
CONTROL_CONNECTION = 2
# The answer to the greeting of a thread's connection is a path: PATH.requests and PATH.answers are pipes that the front opens. Then
# it sends one byte, and frames go over the pipes.
