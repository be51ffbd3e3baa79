"""Reads the folder of prometheus_client's multiprocess mode for the master, with the prometheus_client of the app.

Started with the folder as its argument. For each line on standard input, a JSON object {"format": "prometheus" or
"openmetrics", "dead": [pids]}, it writes one with {"text": ...} or {"error": ...} to descriptor 3, because what watches
Python processes (sitecustomize, OpenTelemetry's console exporter) may print. Ends with its input.

The files of processes that are dead are added into one file, so that there are as many after a thousand recycles as before.
This may be killed at any time: the sums are made in a copy, which takes the place of the file when it is complete.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys

ANSWERS_FD = 3


def bury(folder: str, pid: int) -> None:
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, folder)
    for path in glob.glob(os.path.join(glob.escape(folder), "*_%d.db" % pid)):
        kind = os.path.basename(path).split("_")[0]
        if kind in ("counter", "histogram", "summary"):
            sums = os.path.join(folder, "%s_dead.db" % kind)
            copy = sums + ".new"
            if os.path.exists(sums):
                shutil.copyfile(sums, copy)
            elif os.path.exists(copy):
                os.unlink(copy)
            dead = MmapedDict(copy)
            for key, value, *_ in MmapedDict.read_all_values_from_file(path):
                before = dead.read_value(key)
                if isinstance(before, tuple):
                    dead.write_value(key, before[0] + value, before[1])
                else:  # before prometheus_client 0.17
                    dead.write_value(key, before + value)
            dead.close()
            os.replace(copy, sums)
            os.unlink(path)


def read(folder: str, wanted: str) -> str:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)
    if wanted == "openmetrics":
        from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

        return generate_openmetrics(registry).decode().replace("# EOF\n", "")
    return generate_latest(registry).decode()


def main(folder: str) -> None:
    answers = os.fdopen(ANSWERS_FD, "w", encoding="utf-8")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            for pid in request["dead"]:
                bury(folder, pid)
            answer = {"text": read(folder, request["format"])}
        except Exception as error:
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
