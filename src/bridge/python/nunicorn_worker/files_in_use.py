"""With --reload: tells the master which files the app consists of, as they are imported."""

import os
import sys
import threading
import time
import traceback

_INTERVAL_S = 1


def tell_files(master):
    """Starts a thread that names each file of a module once."""
    threading.Thread(target=_tell, args=(master,), name="nunicorn-files", daemon=True).start()


def tell_files_of_failure(master, error):
    """`error` has ended the import of the app: names what may have to be mended, or made, before it can go well."""
    master.say(op="files", files=_modified_ms(_imported() | _files_of(error)))


def _imported():
    files = (getattr(module, "__file__", None) for module in tuple(sys.modules.values()))
    return {file for file in files if isinstance(file, str)}


def _files_of(error):
    # A module whose import has failed is not among those that have been imported.
    files, seen = set(), set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        files.update(frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
        if isinstance(error, SyntaxError):
            files.add(error.filename or "")
        if isinstance(error, ModuleNotFoundError) and error.name:
            file = error.name.replace(".", "/") + ".py"
            files.update(os.path.join(folder, file) for folder in sys.path if isinstance(folder, str))
        error = error.__cause__ or error.__context__
    return {file for file in files if os.path.isabs(file)}


def _modified_ms(files):
    """When each file was modified last; 0: it is not there. What changes after this moment is not lost on the way to the master."""
    modified = {}
    for file in files:
        try:
            modified[file] = os.stat(file).st_mtime_ns // 1_000_000
        except OSError:
            modified[file] = 0
    return modified


def _tell(master):
    known = set()
    while True:
        files = _imported() - known
        if files:
            known |= files
            master.say(op="files", files=_modified_ms(files))
        time.sleep(_INTERVAL_S)
