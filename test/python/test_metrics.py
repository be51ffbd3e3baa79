"""An app's own metrics, as the master reads them."""

import json
import unittest

from nunicorn_worker import metrics


class NumberOfALibrary:
    """As NumPy's float32: it stays what it is when it is added to a float, and is nothing for JSON."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return self.value

    def __radd__(self, other):
        return NumberOfALibrary(other + self.value)

    def __lt__(self, other):
        return self.value < other

    def __gt__(self, other):
        return self.value > other


def reported(name):
    """The series of a metric, read as strictly as the master reads them."""

    def refuse(constant):
        raise AssertionError("JSON has no %s" % constant)

    (metric,) = (one for one in metrics.report() if one["name"] == name)
    return json.loads(json.dumps(metric), parse_constant=refuse)["series"]


class Numbers(unittest.TestCase):
    def test_a_gauge_that_is_no_number_is_not_shown(self):
        gauge = metrics.gauge("load", "Load.", ["kind"])
        gauge.set(float("nan"), kind="a")
        gauge.set(float("inf"), kind="b")
        gauge.set(2, kind="c")
        self.assertEqual(reported("load"), [[["c"], 2.0]])
        gauge.set(1, kind="a")
        self.assertEqual(reported("load"), [[["a"], 1.0], [["c"], 2.0]])

    def test_what_is_no_number_cannot_be_counted(self):
        orders, price = metrics.counter("orders_total", "Orders."), metrics.histogram("price", "Price.")
        for value in (float("nan"), float("inf")):
            self.assertRaises(ValueError, orders.inc, value)
            self.assertRaises(ValueError, price.observe, value)

    def test_numbers_of_other_libraries_count(self):
        sold, weight = metrics.counter("sold_total", "Sold."), metrics.histogram("weight", "Weight.", buckets=[1, 2])
        sold.inc(NumberOfALibrary(1.5))
        weight.observe(NumberOfALibrary(1.5))
        self.assertEqual(reported("sold_total"), [[[], 1.5]])
        self.assertEqual(reported("weight"), [[[], [0.0, 1.0, 0.0, 1.5]]])


if __name__ == "__main__":
    unittest.main()
