"""The logger of a worker when --statsd-host is set: what hooks and the app log is counted as Gunicorn counts it.

Requests are counted by the front. From here come `gunicorn.log.*`, and what is logged with `extra={"metric": ..., "value": ...,
"mtype": ...}`. A statsd server that is not there costs nothing.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from typing import TYPE_CHECKING, Any

from .log import Logger

if TYPE_CHECKING:
    from .settings import Config


class Statsd(Logger):
    """Sends a line for each warning and error, and for each metric that is logged."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        # A point at the end of every prefix of more than one letter, as in Gunicorn.
        self.prefix = re.sub(r"^(.+[^.]+)\.*$", r"\1.", cfg.statsd_prefix)
        self.dogstatsd_tags = cfg.dogstatsd_tags
        self.sock: socket.socket | None = None
        address = cfg.statsd_host if isinstance(cfg.statsd_host, str) else tuple(cfg.statsd_host)
        with contextlib.suppress(OSError):
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            self.sock = socket.socket(family, socket.SOCK_DGRAM)
            self.sock.setblocking(False)
            self.sock.connect(address)

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        super().critical(msg, *args, **kwargs)
        self.increment("gunicorn.log.critical", 1)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        super().error(msg, *args, **kwargs)
        self.increment("gunicorn.log.error", 1)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        super().warning(msg, *args, **kwargs)
        self.increment("gunicorn.log.warning", 1)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        super().exception(msg, *args, **kwargs)
        self.increment("gunicorn.log.exception", 1)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.log(logging.INFO, msg, *args, **kwargs)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.log(logging.DEBUG, msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        extra = kwargs.get("extra") or {}
        metric, value, kind = extra.get("metric"), extra.get("value"), extra.get("mtype")
        if metric and value is not None:
            send = {"gauge": self.gauge, "counter": self.increment, "histogram": self.histogram, "timer": self.timer}.get(kind)
            if send is not None:
                send(metric, value)
        if msg:
            super().log(lvl, msg, *args, **kwargs)

    def gauge(self, name: str, value: float) -> None:
        self._send("%s:%s|g" % (name, value))

    def increment(self, name: str, value: float, sampling_rate: float = 1.0) -> None:
        self._send("%s:%s|c|@%s" % (name, value, sampling_rate))

    def decrement(self, name: str, value: float, sampling_rate: float = 1.0) -> None:
        self._send("%s:-%s|c|@%s" % (name, value, sampling_rate))

    def timer(self, name: str, value: float) -> None:
        self._send("%s:%s|ms" % (name, value))

    def histogram(self, name: str, value: float) -> None:
        self._send("%s:%s|h" % (name, value))

    def _send(self, text: str) -> None:
        line = self.prefix + text
        if self.dogstatsd_tags:
            line += "|#" + self.dogstatsd_tags
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.send(line.encode("ascii", "replace"))
