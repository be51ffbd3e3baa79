"""Variables of the environ that the access log names, such as `%({REMOTE_USER}e)s`: told to the front as the app leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .frames import ENVIRON, HEADER
from .wsgi import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def telling_environ(app: Any, names: Sequence[str]) -> Any:
    """The app, with an ENVIRON frame before the last frame of each answer."""
    lower_names = [name.lower() for name in names]

    def run(environ: dict[str, Any], start_response: Any) -> Any:
        answer = start_response.__self__

        def tell() -> None:
            answer.slot.out.append(_frame(answer.id, environ, lower_names))

        try:
            result = app(environ, start_response)
        except BaseException:
            tell()
            raise
        if type(result) in (list, tuple, FileWrapper):
            tell()
            return result
        answer.environ_told = False
        return _Telling(result, answer, tell)

    return run


class _Telling:
    """The iterable of an app. At its end, when the app has done what it does with the environ, `tell` is called."""

    def __init__(self, result: Any, answer: Any, tell: Callable[[], None]) -> None:
        self._result = result
        self._answer = answer
        self._tell = tell

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._result
        finally:
            self._tell()
            self._answer.environ_told = True

    def close(self) -> None:
        if hasattr(self._result, "close"):
            self._result.close()


def _frame(request_id: int, environ: dict[str, Any], lower_names: list[str]) -> bytes:
    found = {name.lower(): (name, _text(environ[name])) for name in environ if name.lower() in lower_names}
    parts = [part for name in lower_names if name in found for part in found[name]]
    head = "\0".join(parts).encode("latin-1")
    return HEADER.pack(len(head), ENVIRON, 0, 0, request_id, len(head), 0) + head


def _text(value: object) -> str:
    """In latin-1, without NUL: what does not fit is escaped as Python would."""
    return str(value).encode("latin-1", "backslashreplace").decode("latin-1").replace("\0", "\\x00")
