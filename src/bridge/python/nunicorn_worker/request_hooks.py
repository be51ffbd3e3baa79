"""The hooks of a request, run around the app: so they can be interrupted, and fail, where the app can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .closing import at_close
from .hooks import nothing
from .views import RequestView, ResponseView

if TYPE_CHECKING:
    from collections.abc import Callable

    from .views import WorkerView


def around_request(app: Any, worker: WorkerView) -> Any:
    """The app with pre_request before it and post_request behind the end of its answer."""
    pre_request, post_request = worker.cfg.pre_request, worker.cfg.post_request
    if post_request is nothing:

        def run(environ: dict[str, Any], start_response: Any) -> Any:
            request = RequestView(environ, worker.nr + 1)
            pre_request(worker, request)
            request.keep_headers()
            worker.nr += 1  # after the hook, as gunicorn counts
            return app(environ, start_response)

        return run

    def run_both(environ: dict[str, Any], start_response: Any) -> Any:
        answer = start_response.__self__
        request = RequestView(environ, worker.nr + 1)
        unfinished = _Request(worker, request, post_request)
        try:
            pre_request(worker, request)
            request.keep_headers()
            worker.nr += 1
            unfinished.environ, unfinished.response = environ, ResponseView(answer, request)
            result = app(environ, start_response)
        except BaseException:
            unfinished.end()
            raise
        return at_close(result, answer, unfinished.end)

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
