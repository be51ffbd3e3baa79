"""Started by the master as a script, so that the app finds neither a PYTHONPATH nor an argument of ours."""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, _folder)
from nunicorn_worker.main import main  # noqa: E402

sys.path[:] = [folder for folder in sys.path if folder != _folder]
main()
