"""The hooks of a request, run around the app: so they can be interrupted, and fail, where the app can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hooks import nothing
from .views import RequestView, ResponseView
from .wsgi import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from .views import WorkerView


def around_request(app: Any, worker: WorkerView) -> Any:
    """The app with pre_request before it and post_request behind the end of its answer."""
    pre_request, post_request = worker.cfg.pre_request, worker.cfg.post_request
    if post_request is nothing:

        def run(environ: dict[str, Any], start_response: Any) -> Any:
            worker.nr += 1
            pre_request(worker, RequestView(environ, worker.nr))
            return app(environ, start_response)

        return run

    def run_both(environ: dict[str, Any], start_response: Any) -> Any:
        answer = start_response.__self__
        worker.nr += 1
        request = RequestView(environ, worker.nr)
        unfinished = _Request(worker, request, post_request)
        try:
            pre_request(worker, request)
            unfinished.environ, unfinished.response = environ, ResponseView(answer, request)
            result = app(environ, start_response)
        except BaseException:
            unfinished.end()
            raise
        return unfinished.behind(result, answer)

    return run_both


class _Request:
    """A request for which post_request has still to be called."""

    def __init__(self, worker: WorkerView, request: RequestView, post_request: Callable[..., Any]) -> None:
        self.worker = worker
        self.request = request
        self.post_request = post_request
        # As gunicorn: where pre_request fails there is no environ and no response.
        self.environ: dict[str, Any] = {}
        self.response: ResponseView | None = None

    def end(self) -> None:
        try:
            self.post_request(self.worker, self.request, self.environ, self.response)
        except Exception:
            self.worker.log.exception("Exception in post_request hook")

    def behind(self, result: Any, answer: Any) -> Any:
        """`result` with a close() that calls the hook. The client has its whole answer by then."""
        close = getattr(result, "close", None)

        def close_both() -> None:
            try:
                if close is not None:
                    close()
            finally:
                self.end()

        if type(result) is FileWrapper:
            result.close = close_both
            return result
        if type(result) in (list, tuple) and answer.head is not None and not answer.begun:
            answer.declare_length(sum(map(len, result)))
        return _Closing(result, close_both)


class _Closing:
    """The iterable of an app, with another close()."""

    def __init__(self, result: Any, close: Callable[[], None]) -> None:
        self._result = result
        self.close = close

    def __iter__(self) -> Any:
        return iter(self._result)
