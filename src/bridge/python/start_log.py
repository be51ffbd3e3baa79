"""Started by the master as a script: the process that writes the logs with Python's logging."""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, _folder)
from nunicorn_worker.log_process import main  # noqa: E402

sys.path[:] = [folder for folder in sys.path if folder != _folder]
main()
