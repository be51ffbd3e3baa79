"""An app's own metrics, summed over all workers into `/metrics` of --admin-bind::

    from nunicorn_worker import metrics

    orders = metrics.counter("shop_orders_total", "Orders that were placed.", ["kind"])
    orders.inc(kind="book")

Names and labels are those of Prometheus. A counter goes on when its worker is replaced; what a worker that was killed had
counted in its last second may be lost. Threads may use a metric at the same time. Without --admin-bind it counts for nobody.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from math import isfinite
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED = "nunicorn_"
# Each set of label values is a series that the server and Prometheus keep.
MAX_SERIES = 1000
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_lock = threading.Lock()
_metrics: dict[str, _Metric] = {}
# Called when the first metric is made.
_begun: Callable[[], None] | None = None


def _finite(value: float) -> float:
    """Also of the numbers of other libraries, which are none for JSON."""
    number = float(value)
    if not isfinite(number):
        raise ValueError("%r cannot be counted" % number)
    return number


class _Metric:
    kind = ""

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        if not _NAME.fullmatch(name) or name.startswith(_RESERVED):
            raise ValueError("not a name for a metric of an app: %r" % name)
        for label in labels:
            if not _LABEL.fullmatch(label) or label == "le":
                raise ValueError("not a name for a label: %r" % label)
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._values: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()

    def _key(self, given: dict[str, object]) -> tuple[str, ...]:
        if len(given) != len(self.labels):
            raise ValueError("%s has the labels %s" % (self.name, ", ".join(self.labels) or "(none)"))
        try:
            key = tuple(str(given[label]) for label in self.labels)
        except KeyError as error:
            raise ValueError("%s has no label %s" % (self.name, error)) from None
        if key not in self._values and len(self._values) >= MAX_SERIES:
            raise ValueError("%s has %d sets of label values, more are not kept" % (self.name, MAX_SERIES))
        return key

    def _add(self, amount: float, given: dict[str, object]) -> None:
        key, amount = self._key(given), _finite(amount)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def report(self) -> dict[str, Any]:
        """`series`: label values, and a number; of a histogram a list: a number for each bucket, then the sum. All are finite:
        JSON has no others, and the master could read none of a message with one."""
        with self._lock:
            series = [[key, list(value) if isinstance(value, list) else value] for key, value in self._values.items()]
        return {"name": self.name, "kind": self.kind, "help": self.help, "labels": self.labels, "series": series}


class Counter(_Metric):
    """Only goes up. Its name ends in `_total`."""

    kind = "counter"

    def inc(self, amount: float = 1, **labels: object) -> None:
        if amount < 0:
            raise ValueError("a counter only goes up")
        self._add(amount, labels)


class Gauge(_Metric):
    """Goes up and down. What workers that live have is added up, or with `across` the "max" or "min" of it is shown. While
    it is set to NaN or an infinity it is not shown."""

    kind = "gauge"

    def __init__(self, name: str, help: str, labels: Sequence[str], across: str) -> None:
        super().__init__(name, help, labels)
        if across not in ("sum", "max", "min"):
            raise ValueError('across is "sum", "max" or "min", not %r' % across)
        self.across = across

    def set(self, value: float, **labels: object) -> None:
        key = self._key(labels)
        with self._lock:
            self._values[key] = float(value)

    def inc(self, amount: float = 1, **labels: object) -> None:
        self._add(amount, labels)

    def dec(self, amount: float = 1, **labels: object) -> None:
        self._add(-amount, labels)

    def report(self) -> dict[str, Any]:
        report = super().report()
        series = [(key, value) for key, value in report["series"] if isfinite(value)]
        return {**report, "series": series, "across": self.across}


class Histogram(_Metric):
    """Counts values by size: `buckets` are the upper bounds."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        super().__init__(name, help, labels)
        self.buckets = [float(bound) for bound in buckets]
        if not self.buckets or self.buckets != sorted(set(self.buckets)):
            raise ValueError("buckets are numbers that grow")

    def observe(self, value: float, **labels: object) -> None:
        key, value = self._key(labels), _finite(value)
        with self._lock:
            cells = self._values.get(key)
            if cells is None:
                cells = self._values[key] = [0.0] * (len(self.buckets) + 2)
            cells[bisect_left(self.buckets, value)] += 1
            cells[-1] += value

    def report(self) -> dict[str, Any]:
        return {**super().report(), "buckets": self.buckets}


def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:
    if not name.endswith("_total"):
        raise ValueError("the name of a counter ends in _total: %r" % name)
    return _register(Counter(name, help, labels))


def gauge(name: str, help: str, labels: Sequence[str] = (), across: str = "sum") -> Gauge:
    return _register(Gauge(name, help, labels, across))


def histogram(
    name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = DEFAULT_BUCKETS
) -> Histogram:
    return _register(Histogram(name, help, labels, buckets))


def _register(metric: Any) -> Any:
    """The metric of this name, if there is one like it: a module may be imported twice."""
    with _lock:
        known = _metrics.get(metric.name)
        if known is not None:
            if (type(known), known.labels) != (type(metric), metric.labels):
                raise ValueError("there is another metric called %s" % metric.name)
            return known
        _metrics[metric.name] = metric
        first = len(_metrics) == 1
    if first and _begun is not None:
        _begun()
    return metric


def when_used(begun: Callable[[], None]) -> None:
    """For the worker: `begun` is called when there is a metric, now or later."""
    global _begun
    with _lock:
        _begun = begun
        used = bool(_metrics)
    if used:
        begun()


def report() -> list[dict[str, Any]]:
    """For the worker: all metrics with their values."""
    with _lock:
        metrics = list(_metrics.values())
    return [metric.report() for metric in metrics]
