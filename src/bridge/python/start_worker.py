"""Started by the master as a script, so that the app finds neither a PYTHONPATH nor an argument of ours."""

import os
import signal
import sys

# Not in a process that multiprocessing spawns: there it is run once more, as the main module of the parent.
if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is a handler for it
    _folder = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, _folder)
    from nunicorn_worker.main import main

    sys.path[:] = [folder for folder in sys.path if folder != _folder]
    main()
