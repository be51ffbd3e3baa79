"""Gunicorn's server hooks: their names and arguments."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# How many arguments each takes. post_request may take fewer: see `find`.
ARGUMENTS = {
    "on_starting": 1,
    "on_reload": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "worker_int": 1,
    "worker_abort": 1,
    "pre_exec": 1,
    "pre_request": 2,
    "post_request": 4,
    "child_exit": 2,
    "worker_exit": 2,
    "nworkers_changed": 3,
    "on_exit": 1,
}
# Where one of these is set, worker.nr counts requests.
SEE_REQUESTS = ("pre_request", "post_request", "worker_int", "worker_abort", "worker_exit")
_LEAST_OF_POST_REQUEST = 2


def find(name: str, value: Any) -> Callable[..., Any]:
    """The hook of that name, from a callable or the dotted name of one. Raises TypeError, in gunicorn's words."""
    if isinstance(value, str):
        module_name, _, attribute = value.rpartition(".")
        if not module_name:
            raise TypeError("Value '%s' is not import string. Format: module[.submodules...].object" % value)
        try:
            value = getattr(importlib.import_module(module_name), attribute)
        except ImportError as error:
            raise TypeError(str(error)) from None
        except AttributeError:
            raise TypeError("Can not load '%s' from '%s'" % (attribute, module_name)) from None
    if not callable(value):
        raise TypeError("Value is not callable: %s" % (value,))
    takes = _count_arguments(value)
    wanted = ARGUMENTS[name]
    if takes == wanted:
        return value
    if name == "post_request" and _LEAST_OF_POST_REQUEST <= takes < wanted:
        return lambda *arguments: value(*arguments[:takes])
    raise TypeError("Value must have an arity of: %d" % wanted)


def _count_arguments(function: Callable[..., Any]) -> int:
    import inspect  # only those who have hooks pay for it

    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in inspect.signature(function).parameters.values())


def nothing(*_: object) -> None:
    """A hook that is not set."""
