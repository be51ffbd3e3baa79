"""With --reload: tells the master which files the app consists of, as they are imported."""

import sys
import threading
import time

_INTERVAL_S = 1


def tell_files(master):
    """Starts a thread that names each file of a module once."""
    threading.Thread(target=_tell, args=(master,), name="nunicorn-files", daemon=True).start()


def _tell(master):
    known = set()
    while True:
        files = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())} - known - {None}
        if files:
            known |= files
            master.say(op="files", files=sorted(files))
        time.sleep(_INTERVAL_S)
