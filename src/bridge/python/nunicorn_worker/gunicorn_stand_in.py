"""For configuration files that say `from gunicorn import glogging` where gunicorn is not installed (any more)."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING

from . import log

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def gunicorn_importable() -> Iterator[None]:
    """While it lasts `gunicorn.glogging` can be imported, with our logger for gunicorn's. Afterwards the app finds what there is."""
    if "gunicorn" in sys.modules or importlib.util.find_spec("gunicorn") is not None:
        yield
        return
    package, glogging = types.ModuleType("gunicorn"), types.ModuleType("gunicorn.glogging")
    package.__path__ = []  # type: ignore[attr-defined]
    package.glogging = glogging  # type: ignore[attr-defined]
    glogging.Logger = log.Logger  # type: ignore[attr-defined]
    glogging.SafeAtoms = log.SafeAtoms  # type: ignore[attr-defined]
    glogging.CONFIG_DEFAULTS = log.LOGCONFIG  # type: ignore[attr-defined]
    sys.modules.update({"gunicorn": package, "gunicorn.glogging": glogging})
    try:
        yield
    finally:
        for name in ("gunicorn", "gunicorn.glogging"):
            sys.modules.pop(name, None)
