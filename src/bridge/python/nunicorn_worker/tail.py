"""How long an app goes on after the last piece of an answer: `next()` once more, then `close()`."""

# An answer may wait for a tail no longer than this: it saves the front, and the thread, a wake-up.
SHORT_SECONDS = 0.0002
# Up to here a tail may have been a short one in which the thread lost the processor, or the GIL, for a while.
PREEMPTED_SECONDS = 0.02
_WINDOW = 50
_MAX_PREEMPTED = 5  # of a window


class Tail:
    """Whether the tail of the next answer will be short: as the last 50 to 100 were, but for a tenth that were preempted."""

    __slots__ = ("_before", "_preempted", "_seen", "is_short")

    def __init__(self):
        self.is_short = False
        self._seen = 0
        self._preempted = 0
        self._before = _WINDOW  # nothing is known yet

    def observe(self, seconds):
        self._seen += 1
        if seconds > SHORT_SECONDS:
            self._preempted += 1 if seconds <= PREEMPTED_SECONDS else _WINDOW
            if self._preempted > _MAX_PREEMPTED:
                self.is_short = False
        if self._seen == _WINDOW:
            self.is_short = max(self._preempted, self._before) <= _MAX_PREEMPTED
            self._before = self._preempted
            self._preempted = 0
            self._seen = 0
