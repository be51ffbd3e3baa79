"""`cfg`, as hooks and loggers know it: gunicorn's names for the settings in force, read only."""

from __future__ import annotations

import importlib
from typing import Any

from . import hooks
from .app import prepare_path
from .log import Logger

# Gunicorn's own logger does nothing that ours does not.
_OWN_LOGGER = ("gunicorn.glogging.Logger", "simple", None)


def load(process: dict[str, Any]) -> Config:
    """The settings of a Python process, from what the master sent. It runs a configuration file of Python's once more.

    `process["settings"]`: values by name; hooks by the dotted name that names them, or None.
    `process["file"]`: {"location": of the file, "cwd": folder, "names": what is taken from it}, or None.
    Raises whatever the file raises, and TypeError for a hook that cannot be called.
    """
    values = dict(process["settings"])
    file = process["file"]
    if file is not None:
        from .config import run_again

        found = run_again(file, values["raw_env"])
        values.update({name: found[name] for name in file["names"]})
    else:
        prepare_path(process)  # a nunicorn.config file may name functions of the app's packages
    for name in hooks.ARGUMENTS:
        value = values.get(name)
        values[name] = hooks.nothing if value is None else hooks.find(name, value)
    return Config(values)


class Setting:
    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def get(self) -> Any:
        return self.value


class Config:
    def __init__(self, values: dict[str, Any]) -> None:
        """`values`: the settings in the forms that gunicorn gives them, hooks as callables."""
        self.__dict__["_values"] = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError("No configuration setting for: %s" % name) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a hook cannot change %s: assign it in the configuration file" % name)

    set = __setattr__

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    @property
    def settings(self) -> dict[str, Setting]:
        return {name: Setting(name, value) for name, value in self._values.items()}

    @property
    def address(self) -> list[Any]:
        """Where the server listens: (host, port), or the path of a Unix socket."""
        return [_address(bind) for bind in self._values["bind"]]

    @property
    def uid(self) -> int:
        return self._values["user"]

    @property
    def gid(self) -> int:
        return self._values["group"]

    @property
    def env(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self._values["raw_env"])

    @property
    def worker_class_str(self) -> str:
        return self._values["worker_class"]

    @property
    def logger_class(self) -> Any:
        """The class of the logger: our own, or what the setting names."""
        named = self._values["logger_class"]
        if named in _OWN_LOGGER:
            return Logger
        if isinstance(named, type):
            return named
        module, _, name = named.rpartition(".")
        from .gunicorn_stand_in import gunicorn_importable

        try:
            with gunicorn_importable():
                return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise RuntimeError("logger_class %r cannot be imported: %s" % (named, error)) from error

    @property
    def is_ssl(self) -> bool:
        return bool(self._values.get("certfile") or self._values.get("keyfile"))


def _address(bind: str) -> Any:
    if bind.startswith("unix:"):
        return bind[len("unix:") :]
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else port
