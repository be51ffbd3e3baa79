"""Started by the master as a script: the process that writes the logs with Python's logging."""

import os
import sys

# Not in a process that multiprocessing spawns: there it is run once more, as the main module of the parent.
if __name__ == "__main__":
    _folder = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, _folder)
    from nunicorn_worker.log_process import main

    sys.path[:] = [folder for folder in sys.path if folder != _folder]
    main()
