"""Loads an app through PasteDeploy, which the user's Python has to have: `--paste FILE.ini#NAME`."""

import os
import re

from .app import AppLoadError


def load_paste_app(uri, assignments):
    """`uri` is FILE or FILE#NAME; `assignments`, such as ["debug=true"], go into the file's global configuration."""
    try:
        from paste.deploy import loadapp
    except ImportError:
        raise AppLoadError("--paste needs PasteDeploy in the application's Python: pip install PasteDeploy") from None
    return loadapp("config:" + uri, relative_to=os.getcwd(), global_conf=dict(map(_assignment, assignments)))


def _assignment(text):
    """The two sides of the first `=` that is not escaped as `\\=`."""
    sides = re.split(r"(?<!\\)=", text, maxsplit=1)
    if len(sides) != 2:
        raise AppLoadError("--paste-global needs NAME=VALUE, not %r" % text)
    name, value = (side.replace("\\=", "=").strip() for side in sides)
    return name, value
