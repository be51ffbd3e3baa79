"""Runs a Gunicorn configuration file and reports what it set.

    python -m nunicorn_worker.config LOCATION [ARGUMENT ...]

LOCATION is PATH, file:PATH or python:MODULE; the file finds the arguments, those of the server, in sys.argv. The report is one line of JSON on descriptor 3, because the file may print:

    {"values": {NAME: ["value", JSON] | ["class", DOTTED_NAME] | ["hook", NAME] | ["bad", PROBLEM] | ["other", TYPE]},
     "lines": {NAME: LINE},
     "env": {"set": {...}, "unset": [...]}}
    {"problem": TEXT, "traceback": TEXT or null}
"""

from __future__ import annotations

import _ast
import importlib
import importlib.machinery
import importlib.util
import json
import logging
import math
import os
import sys
import traceback
from typing import Any

from nunicorn_worker import hooks, log
from nunicorn_worker.gunicorn_stand_in import gunicorn_importable

REPORT_FD = 3


class _NoJson(Exception):
    """The value has no form in JSON."""


def run_file(path: str) -> dict[str, Any]:
    # The name and the place in sys.modules are Gunicorn's.
    name = "__config__"
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return vars(module)


def run_location(location: str) -> dict[str, Any]:
    with gunicorn_importable():
        if location.startswith("python:"):
            names = vars(importlib.import_module(location[len("python:") :]))
        else:
            names = run_file(location[len("file:") :] if location.startswith("file:") else location)
        _name_changed_logger(names)
    return names


_FORMATS = {name: getattr(log.Logger, name) for name in ("error_fmt", "access_fmt", "syslog_fmt", "datefmt")}


def _name_changed_logger(names: dict[str, Any]) -> None:
    """Gunicorn's logger as the file leaves it (`glogging.Logger.datefmt = ...`, a filter for "gunicorn.access") is one of its own."""
    if names.get("logger_class") is not None:
        return
    glogging = sys.modules.get("gunicorn.glogging")
    base = log.Logger if glogging is None else glogging.Logger
    loggers = [logging.getLogger(name) for name in ("gunicorn.error", "gunicorn.access")]
    if _is_changed(base) or any(logger.filters or logger.handlers or logger.disabled for logger in loggers):
        names["logger_class"] = type("Logger", (base,), {"__module__": "__config__"})


def _is_changed(logger: type) -> bool:
    return any(getattr(logger, name) != value for name, value in _FORMATS.items()) or any(
        getattr(value, "__module__", logger.__module__) != logger.__module__ for value in vars(logger).values()
    )


def run_again(file: dict[str, Any], raw_env: list[str]) -> dict[str, Any]:
    """For a process of the server, which begins with the environment of the start: what the file does is there then, as in a
    process that gunicorn has forked. Returns the names of the file, {"location": ..., "cwd": where the server was started}."""
    os.chdir(file["cwd"])
    if file["cwd"] not in sys.path:
        sys.path.insert(0, file["cwd"])
    names = run_location(file["location"])
    os.environ.update(entry.split("=", 1) for entry in raw_env)
    return names


def encode(name: str, value: Any) -> list[Any]:
    if name in hooks.ARGUMENTS and value is not None:
        try:
            hooks.find(name, value)
        except Exception as error:  # of another module's import, where the value is a dotted name
            return ["bad", str(error)]
        return ["hook", value if isinstance(value, str) else getattr(value, "__qualname__", type(value).__name__)]
    if name == "logconfig_dict":
        value = without_objects(value)
    if isinstance(value, type):
        return ["class", f"{value.__module__}.{value.__qualname__}"]
    try:
        return ["value", to_json(value)]
    except (_NoJson, RecursionError):
        return ["other", type(value).__name__]


def without_objects(value: Any) -> Any:
    """The same with names of types for what has no form in JSON: filters, handlers and the like stay in Python."""
    if isinstance(value, dict):
        return {str(key): without_objects(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_objects(item) for item in value]
    try:
        return to_json(value)
    except (_NoJson, RecursionError):
        return f"<{type(value).__name__}>"


def to_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return to_json(os.fspath(value))
    raise _NoJson


def assignment_lines(path: str | None) -> dict[str, int]:
    """The line of the last assignment to each name at the file's top level, `if` and the like included. Loops assign none."""
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            tree = compile(file.read(), path, "exec", flags=_ast.PyCF_ONLY_AST, dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return {}
    lines: dict[str, int] = {}
    _note_lines(tree.body, lines)
    return lines


def _note_lines(statements: list[Any], lines: dict[str, int]) -> None:
    for statement in statements:
        if isinstance(statement, (_ast.FunctionDef, _ast.ClassDef)):
            lines[statement.name] = statement.lineno
            continue
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
        if isinstance(statement, _ast.For):
            targets = []
        for target in targets:
            for name in getattr(target, "elts", None) or [target]:
                if isinstance(name, _ast.Name):
                    lines[name.id] = statement.lineno
        for block in ("body", "handlers", "orelse", "finalbody"):
            _note_lines(getattr(statement, block, None) or [], lines)


def environment_changes(before: dict[str, str]) -> dict[str, Any]:
    after = dict(os.environ)
    return {
        "set": {key: value for key, value in after.items() if before.get(key) != value},
        "unset": [key for key in before if key not in after],
    }


def leave_no_trace() -> None:
    """Undoes what was needed to find this module, so that the file sees the user's own environment."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if entries[0] == ours:
        rest = os.pathsep.join(entries[1:])
        if rest:
            os.environ["PYTHONPATH"] = rest
        else:
            del os.environ["PYTHONPATH"]
    sys.path[:] = [entry for entry in sys.path if entry != ours]
    cwd = os.getcwd()
    if cwd not in sys.path:
        sys.path.insert(0, cwd)


def report(location: str) -> dict[str, Any]:
    before = dict(os.environ)
    try:
        names = run_location(location)
    except SystemExit as error:
        return {"problem": f"it called sys.exit({error.code!r})", "traceback": None}
    except BaseException as error:
        # The first frames are of this file and of the import system.
        problem = f"it raised {type(error).__name__}{_advice_on(error)}"
        return {"problem": problem, "traceback": user_traceback(error)}
    values = {name: encode(name, value) for name, value in list(names.items()) if not name.startswith("_")}
    return {
        "values": values,
        "lines": assignment_lines(names.get("__file__")),
        "env": environment_changes(before),
    }


def _advice_on(error: BaseException) -> str:
    if not isinstance(error, ImportError) or (error.name or "").partition(".")[0] != "gunicorn":
        return ""
    if importlib.util.find_spec("gunicorn") is not None:
        return ""
    return (
        f", as gunicorn is not installed for {sys.executable}, and nunicorn has only its glogging:"
        " take that import out, or install gunicorn there"
    )


def user_traceback(error: BaseException) -> str:
    frames = error.__traceback__
    hidden = (__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    while frames is not None and frames.tb_frame.f_code.co_filename in hidden:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")


def main() -> None:
    os.set_inheritable(REPORT_FD, False)
    location, *arguments = sys.argv[1:]
    leave_no_trace()
    sys.argv[:] = ["nunicorn", *arguments]
    line = json.dumps(report(location)).encode("ascii") + b"\n"
    with os.fdopen(REPORT_FD, "wb") as stream:
        stream.write(line)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that the file may have started must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
