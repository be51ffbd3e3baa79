"""How long an app goes on after the last piece of an answer: `next()` once more, then `close()`."""

# An answer may wait for a tail no longer than this: it saves the front, and the thread, a wake-up.
SHORT_SECONDS = 0.0002
_WINDOW = 50


class Tail:
    """Whether the tail of the next answer will be short: as long as the slowest of the last 50 to 100 was."""

    __slots__ = ("_before", "_seen", "_worst", "is_short")

    def __init__(self):
        self.is_short = False
        self._seen = 0
        self._worst = 0.0
        self._before = 1.0  # nothing is known yet

    def observe(self, seconds):
        self._seen += 1
        if seconds > self._worst:
            self._worst = seconds
            if seconds > SHORT_SECONDS:
                self.is_short = False
        if self._seen == _WINDOW:
            self.is_short = max(self._worst, self._before) <= SHORT_SECONDS
            self._before = self._worst
            self._worst = 0.0
            self._seen = 0
