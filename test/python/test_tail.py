"""When an answer may wait for the app to clean up."""

import unittest

from nunicorn_worker.tail import PREEMPTED_SECONDS, SHORT_SECONDS, Tail


class TestTail(unittest.TestCase):
    def seen(self, *tails):
        tail = Tail()
        for seconds in tails:
            tail.observe(seconds)
        return tail

    def test_nothing_is_known_at_first(self):
        self.assertFalse(Tail().is_short)
        self.assertFalse(self.seen(*[0.0] * 99).is_short)

    def test_two_windows_of_short_ones(self):
        self.assertTrue(self.seen(*[SHORT_SECONDS] * 100).is_short)

    def test_a_long_one_counts_at_once_and_for_the_next_window(self):
        tail = self.seen(*[0.0] * 100, 2 * PREEMPTED_SECONDS)
        self.assertFalse(tail.is_short)
        for _ in range(99):
            tail.observe(0.0)
        self.assertFalse(tail.is_short)
        for _ in range(50):
            tail.observe(0.0)
        self.assertTrue(tail.is_short)

    def test_a_tenth_may_have_been_preempted(self):
        self.assertTrue(self.seen(*([0.0] * 9 + [PREEMPTED_SECONDS]) * 10).is_short)
        self.assertFalse(self.seen(*([0.0] * 8 + [PREEMPTED_SECONDS]) * 12).is_short)


if __name__ == "__main__":
    unittest.main()
