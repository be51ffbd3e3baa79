"""What a wrapper around the app does at the end of an answer, whatever kind of iterable the app has returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .wsgi import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Closing:
    """The iterable of an app, with another close()."""

    def __init__(self, result: Any, close: Callable[[], None]) -> None:
        self._result = result
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._result)


def at_close(result: Any, answer: Any, action: Callable[[], None]) -> Any:
    """`result`, whose close() also calls `action`. The client has its whole answer by then."""
    close = getattr(result, "close", None)

    def close_both() -> None:
        try:
            if close is not None:
                close()
        finally:
            action()

    if type(result) is FileWrapper:
        result.close = close_both
        return result
    if type(result) in (list, tuple) and answer.head is not None and not answer.begun:
        answer.declare_length(sum(map(len, result)))
    return _Closing(result, close_both)
