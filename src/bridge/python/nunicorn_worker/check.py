"""Loads the app as a worker would and exits with 0, or with 1 and the reason on stderr: `--check-config`.

    python -m nunicorn_worker.check SETTINGS

SETTINGS is JSON: {"app": ..., "cwd": ..., "chdir": ..., "pythonpath": ..., "paste": ..., "raw_paste_global_conf": ...,
"raw_env": ..., "file": the configuration file in Python, or null}
"""

import json
import os
import sys
import traceback

from .app import AppLoadError, advice_on, find_app, prepare_path
from .config import leave_no_trace, run_again


def main():
    settings = json.loads(sys.argv[1])
    leave_no_trace()
    sys.argv[:] = ["nunicorn"]
    status = 1
    try:
        if settings["file"] is not None:
            run_again(settings["file"], settings["raw_env"])
        prepare_path(settings)
        find_app(settings["app"], settings)
        status = 0
    except AppLoadError as error:
        print("\nError while loading the application: %s" % error, file=sys.stderr)
    except BaseException as error:
        print("\nError while loading the application:\n", file=sys.stderr)
        traceback.print_exc()
        advice = advice_on(error, settings["app"])
        if advice:
            print("\n%s" % advice, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that the app may have started must not keep this process.
    os._exit(status)


if __name__ == "__main__":
    main()
