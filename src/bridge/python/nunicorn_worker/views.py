"""What hooks are given: server, worker, request and response with the attributes of gunicorn's objects."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from .log import Logger
    from .settings import Config
    from .wsgi import Answer


class ServerView:
    """The master, as gunicorn's Arbiter. What it does cannot be asked of it here: it is another process."""

    def __init__(self, cfg: Config, log: Logger, pid: int, app: AppView) -> None:
        self.cfg = cfg
        self.log = log
        self.pid = pid
        self.app = app
        self.address = cfg.address
        self.timeout = cfg.timeout
        self.proc_name = cfg.proc_name
        self.num_workers: int | None = None
        self.worker_age = 0
        self.master_name = "Master"
        self.WORKERS: dict[int, WorkerView] = {}
        self.LISTENERS: list[ListenerView] = []


class ListenerView:
    """An address that is listened at; the socket itself is the fronts'."""

    def __init__(self, url: str, address: Any) -> None:
        self._url = url
        self._address = tuple(address) if isinstance(address, list) else address

    def __str__(self) -> str:
        return self._url

    def getsockname(self) -> Any:
        return self._address


class AppView:
    """The app: `wsgi()` imports it if that has not happened yet."""

    def __init__(self, uri: str, cfg: Config, load: Callable[[], Any]) -> None:
        self.app_uri = uri
        self.cfg = cfg
        self.callable: Any = None
        self._load = load

    def wsgi(self) -> Any:
        if self.callable is None:
            self.callable = self._load()
        return self.callable


class WorkerView:
    """A worker. `number`, nunicorn's own: 1 to --workers, the same for a worker and its replacement."""

    def __init__(self, server: ServerView, age: int, number: int) -> None:
        self.age = age
        self.number = number
        self.pid: int | str = "[booting]"
        self.ppid = server.pid
        self.sockets = server.LISTENERS
        self.app = server.app
        self.cfg = server.cfg
        self.log = server.log
        self.timeout = server.timeout / 2.0
        self.max_requests = getattr(server.cfg, "max_requests", 0) or sys.maxsize
        self.nr = 0
        self.booted = False
        self.aborted = False
        self.reloader = None
        self.wsgi: Any = None
        self.ask_to_leave: Callable[[], None] | None = None
        self._alive = True

    def __str__(self) -> str:
        return "<Worker %s>" % self.pid

    @property
    def alive(self) -> bool:
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        """False, set by a hook: the worker finishes what it runs and is replaced."""
        if self._alive and not value and self.ask_to_leave is not None:
            self.ask_to_leave()
        self._alive = bool(value)

    def notify(self) -> None:
        """Gunicorn's heartbeat. Here the fronts watch each request, and nothing has to be said."""


_PLAIN_HEADERS = ("CONTENT_TYPE", "CONTENT_LENGTH")
# What gunicorn takes from the request when it makes the environ, which is after pre_request.
_ENVIRON_KEYS = {"method": "REQUEST_METHOD", "uri": "RAW_URI", "query": "QUERY_STRING", "scheme": "wsgi.url_scheme"}


class RequestView:
    """A request, made from its environ, each attribute when it is asked for. The app gets what pre_request changes."""

    def __init__(self, environ: dict[str, Any], number: int) -> None:
        self._environ = environ
        self.req_number = number

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in _ENVIRON_KEYS:
            self._environ[_ENVIRON_KEYS[name]] = value
        elif name == "path":
            path = value.removeprefix(self._environ["SCRIPT_NAME"])
            self._environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")

    def keep_headers(self) -> None:
        """Puts the headers into the environ, if pre_request has changed them."""
        headers = vars(self).get("headers")
        if headers is None or headers == self._headers_of_environ():
            return
        environ, values = self._environ, {}
        for name, value in headers:
            values.setdefault(_environ_key(name), []).append(value)
        for key in [key for key in environ if key.startswith("HTTP_") or key in _PLAIN_HEADERS]:
            del environ[key]
        environ.update((key, ",".join(same) if len(same) > 1 else same[0]) for key, same in values.items())

    @cached_property
    def method(self) -> str:
        return self._environ["REQUEST_METHOD"]

    @cached_property
    def uri(self) -> str:
        """The target as it was sent."""
        return self._environ["RAW_URI"]

    @cached_property
    def path(self) -> str:
        return self._split().path

    @cached_property
    def query(self) -> str:
        return self._split().query

    @cached_property
    def fragment(self) -> str:
        return self._split().fragment

    @cached_property
    def version(self) -> tuple[int, int]:
        major, minor = self._environ["SERVER_PROTOCOL"].partition("/")[2].split(".")
        return int(major), int(minor)

    @cached_property
    def scheme(self) -> str:
        return self._environ["wsgi.url_scheme"]

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """(NAME, value); what was sent several times stands here once, joined."""
        return self._headers_of_environ()

    def _headers_of_environ(self) -> list[tuple[str, str]]:
        named = [(name[5:], value) for name, value in self._environ.items() if name.startswith("HTTP_")]
        plain = [(name, self._environ[name]) for name in _PLAIN_HEADERS if name in self._environ]
        return [(name.replace("_", "-"), value) for name, value in named + plain]

    @cached_property
    def trailers(self) -> list[tuple[str, str]]:
        return []

    @cached_property
    def body(self) -> Any:
        return self._environ["wsgi.input"]

    @cached_property
    def remote_addr(self) -> Any:
        """(host, port), or "" for a client at a Unix socket."""
        port = self._environ.get("REMOTE_PORT")
        return (self._environ["REMOTE_ADDR"], int(port)) if port else ""

    @cached_property
    def peer_addr(self) -> Any:
        return self.remote_addr

    def _split(self) -> Any:
        target = self.uri
        if target.startswith("//"):  # a path that begins with // is no host
            split = urlsplit("." + target)
            return split._replace(path=split.path[1:])
        return urlsplit(target)


def _environ_key(name: str) -> str:
    key = name.replace("-", "_")
    return key if key in _PLAIN_HEADERS else "HTTP_" + key


class ResponseView:
    """An answer, as far as it has come."""

    def __init__(self, answer: Answer, request: RequestView) -> None:
        self._answer = answer
        self.req = request

    @property
    def status(self) -> str | None:
        if self._answer.head is None:
            return None
        return "%d %s" % (self._answer.status, self._answer.head.partition("\r\n")[0])

    @property
    def status_code(self) -> int | None:
        return None if self._answer.head is None else self._answer.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = (self._answer.head or "").split("\r\n")[1:-1]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]

    @property
    def headers_sent(self) -> bool:
        return self._answer.begun

    @property
    def sent(self) -> int:
        """Bytes of the body."""
        return self._answer.body_sent

    @property
    def response_length(self) -> int | None:
        return None if self._answer.head is None or self._answer.length < 0 else self._answer.length
