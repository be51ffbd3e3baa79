"""Prints each line of Python before it runs, the app's and its libraries': `--spew`."""

import linecache
import sys
import threading

_OURS = __name__.partition(".")[0]


def install():
    threading.settrace(_trace)
    sys.settrace(_trace)


def _trace(frame, event, _argument):
    module = frame.f_globals.get("__name__", "[unknown]")
    if module.partition(".")[0] == _OURS:
        return None
    if event == "line":
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)
        print("%s:%d: %s" % (module, frame.f_lineno, line.rstrip()))
    return _trace
