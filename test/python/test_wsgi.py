"""What an app may tell start_response and give back (PEP 3333), and which frames become of it."""

import io
import os
import sys
import tempfile
import unittest
from itertools import chain, repeat
from unittest import mock

from nunicorn_worker import wsgi
from nunicorn_worker.frames import BODY_IN_FILE, LAST, PATH_ENCODED
from support import ANSWER, DATA, END, ERROR, HEAD, HINTS, Body, FakeSlot, answer

TEXT = [("Content-Type", "text/plain")]


def returns(body, status="200 OK", headers=()):
    def app(environ, start_response):
        start_response(status, list(headers))
        return body

    return app


class TestStartResponse(unittest.TestCase):
    def test_a_list_is_one_frame_with_a_content_length(self):
        got = answer(returns([b"one,", b"two"], "201 Made It", TEXT))
        self.assertEqual(got.kinds, [ANSWER])
        self.assertEqual((got.status, got.reason), (201, "Made It"))
        self.assertEqual(got.headers, [*TEXT, ("Content-Length", "7")])
        self.assertEqual(got.body, b"one,two")

    def test_an_empty_list_has_length_0(self):
        for body in ([], [b""], ()):
            with self.subTest(body=body):
                got = answer(returns(body))
                self.assertEqual((got.kinds, got.headers, got.body), ([ANSWER], [("Content-Length", "0")], b""))

    def test_late_within_the_generator(self):
        def app(environ, start_response):
            start_response("201 Late", TEXT)
            yield b"body"

        got = answer(app)
        self.assertEqual(got.kinds, [HEAD, END])
        self.assertEqual((got.status, got.headers, got.body, got.cut), (201, TEXT, b"body", False))

    def test_never_called(self):
        for body in ([b"x"], [], Body(b"x"), Body(), iter([b""])):
            with self.subTest(body=body):
                got = answer(lambda environ, start_response, body=body: body)
                self.assertEqual(got.kinds, [ERROR])
                self.assertTrue(got.logged)

    def test_twice_without_exc_info(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            start_response("200 OK", [])
            return [b"x"]

        got = answer(app)
        self.assertEqual(got.kinds, [ERROR])
        self.assertIn("called twice", got.logged[0])

    def test_exc_info_before_the_body_replaces_the_head(self):
        def app(environ, start_response):
            start_response("200 OK", [("X-First", "1"), ("Content-Length", "3")])
            try:
                raise ValueError("app")
            except ValueError:
                start_response("503 Sorry", TEXT, sys.exc_info())
            return [b"later"]

        got = answer(app)
        self.assertEqual((got.status, got.headers, got.body), (503, [*TEXT, ("Content-Length", "5")], b"later"))

    def test_exc_info_as_the_first_call(self):
        def app(environ, start_response):
            try:
                raise ValueError("app")
            except ValueError:
                start_response("500 First", TEXT, sys.exc_info())
            return [b"x"]

        self.assertEqual(answer(app).status, 500)

    def test_exc_info_after_the_body_began_is_raised_again(self):
        caught = []

        def app(environ, start_response):
            start_response("200 OK", TEXT)
            yield b"first"
            try:
                raise ValueError("app")
            except ValueError:
                try:
                    start_response("500 Too Late", [], sys.exc_info())
                except ValueError as error:
                    caught.append(error)
                    raise

        got = answer(app)
        self.assertEqual(str(caught[0]), "app")
        self.assertEqual(got.kinds, [HEAD, END])
        self.assertEqual((got.status, got.body, got.cut), (200, b"first", True))

    def test_empty_pieces_hold_the_head_back(self):
        def app(environ, start_response):
            start_response("200 OK", [])
            yield b""
            try:
                raise ValueError("app")
            except ValueError:
                start_response("503 Sorry", [], sys.exc_info())
            yield b""
            yield b"body"

        got = answer(app)
        self.assertEqual((got.status, got.body), (503, b"body"))

    def test_what_is_appended_to_the_headers_afterwards_is_not_sent(self):
        def app(environ, start_response):
            headers = [("X-A", "1")]
            start_response("200 OK", headers)
            headers.append(("X-B", "2"))
            return Body(b"x")

        self.assertEqual(answer(app).headers, [("X-A", "1")])

    def test_a_failed_call_leaves_no_head(self):
        def app(environ, start_response):
            try:
                start_response("200 OK", [("X-A", "a\nb")])
            except ValueError:
                start_response("500 Bad", [])
            return [b"x"]

        self.assertEqual(answer(app).status, 500)


class TestWrite(unittest.TestCase):
    def test_each_write_leaves_at_once_before_what_is_returned(self):
        seen = []
        slot = FakeSlot()

        def app(environ, start_response):
            write = start_response("200 OK", [])
            write(b"one,")
            seen.append([frame.body for frame in slot.frames()])
            write(b"two,")
            return [b"three"]

        got = answer(app, slot=slot)
        self.assertEqual(seen, [[b"one,"]])
        self.assertEqual(got.kinds, [HEAD, DATA, DATA, END])
        self.assertEqual((got.body, got.cut), (b"one,two,three", False))

    def test_a_content_length_counts_written_and_returned(self):
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "6")])(b"1234")
            return [b"5678"]

        got = answer(app)
        self.assertEqual((got.body, got.cut), (b"123456", False))

    def test_only_bytes(self):
        for piece in ("text", bytearray(b"x"), 1, None):
            with self.subTest(piece=piece):

                def app(environ, start_response, piece=piece):
                    start_response("200 OK", [])(piece)
                    return []

                self.assertEqual(answer(app).kinds, [ERROR])

    def test_an_empty_write_sends_the_head(self):
        def app(environ, start_response):
            start_response("200 OK", [])(b"")
            raise ValueError("late")

        got = answer(app)
        self.assertEqual((got.kinds, got.status, got.cut), ([HEAD, END], 200, True))


class TestLength(unittest.TestCase):
    def test_too_long_is_cut_to_the_declared_length(self):
        for body in ([b"123", b"4567890"], Body(b"123", b"4567890"), Body(b"12345", b"67890"), Body(b"1234567890")):
            with self.subTest(body=body):
                got = answer(returns(body, headers=[("Content-Length", "5")]))
                self.assertEqual((got.body, got.cut), (b"12345", False))
                self.assertEqual(got.headers, [("Content-Length", "5")])

    def test_too_short_breaks_the_connection(self):
        for body in ([b"12345"], [], Body(b"123", b"45"), Body()):
            with self.subTest(body=body):
                got = answer(returns(body, headers=[("content-length", "10")]))
                self.assertEqual(got.kinds[0], HEAD)
                self.assertTrue(got.cut)

    def test_exact(self):
        for body in ([b"123", b"45"], Body(b"123", b"45")):
            with self.subTest(body=body):
                got = answer(returns(body, headers=[("Content-Length", " 5 ")]))
                self.assertEqual((got.headers, got.body, got.cut), ([("Content-Length", "5")], b"12345", False))

    def test_no_number(self):
        for value in ("abc", "-1", "", "1_0", "+5", "5, 5", "\u0665", "0x5", "5.0", "\xb2"):
            with self.subTest(value=value):
                self.assertEqual(answer(returns([b"12345"], headers=[("Content-Length", value)])).kinds, [ERROR])

    def test_two_that_differ(self):
        headers = [("Content-Length", "5"), ("Content-length", "6")]
        self.assertEqual(answer(returns([b"12345"], headers=headers)).kinds, [ERROR])

    def test_a_large_list_goes_in_pieces_with_its_length(self):
        pieces = [b"a" * wsgi.MAX_ANSWER_BYTES, b"b"]
        got = answer(returns(pieces))
        self.assertEqual(got.kinds, [HEAD, DATA, END])
        self.assertEqual(got.headers, [("Content-Length", str(wsgi.MAX_ANSWER_BYTES + 1))])
        self.assertEqual((got.body, got.cut), (b"".join(pieces), False))

    def test_the_largest_body_of_one_frame(self):
        self.assertEqual(answer(returns([b"a" * wsgi.MAX_ANSWER_BYTES])).kinds, [ANSWER])

    def test_a_large_list_of_str_is_refused_before_its_head(self):
        self.assertEqual(answer(returns(["a" * wsgi.MAX_ANSWER_BYTES, "b"])).kinds, [ERROR])

    def test_headers_from_an_iterator(self):
        got = answer(returns([b"12345"]))
        self.assertEqual(got.headers, [("Content-Length", "5")])

        def app(environ, start_response):
            start_response("200 OK", iter([("Content-Length", "5"), ("X-A", "1")]))
            return [b"12345"]

        self.assertEqual(answer(app).headers, [("Content-Length", "5"), ("X-A", "1")])


    def test_two_equal_content_lengths_are_one(self):
        headers = [("X-A", "Content-Length"), ("Content-Length", "5"), ("content-length", " 5 "), ("X-B", "2")]
        got = answer(returns([b"12345"], headers=headers))
        self.assertEqual((got.headers, got.body), ([headers[0], headers[3], ("Content-Length", "5")], b"12345"))

    def test_two_different_content_lengths_are_an_error(self):
        headers = [("Content-Length", "5"), ("Content-Length", "6")]
        self.assertEqual(answer(returns([b"12345"], headers=headers)).kinds, [ERROR])


class TestWithoutBody(unittest.TestCase):
    def test_the_body_is_dropped(self):
        for method, status in (
            ("HEAD", "200 OK"),
            ("GET", "204 No Content"),
            ("GET", "304 Not Modified"),
            ("HEAD", "404 No"),
        ):
            for body in ([b"leak"], Body(b"le", b"ak"), [b"x" * 70_000], iter([b"leak"])):
                with self.subTest(method=method, status=status, body=type(body)):
                    got = answer(returns(body, status, TEXT), method)
                    self.assertEqual((got.body, got.cut, got.headers), (b"", False, TEXT))

    def test_the_written_body_is_dropped(self):
        def app(environ, start_response):
            start_response("200 OK", [])(b"leak")
            return []

        got = answer(app, "HEAD")
        self.assertEqual((got.body, got.cut), (b"", False))

    def test_content_length_stays_for_head_and_304(self):
        headers = [("X-A", "1"), ("Content-Length", "5"), ("X-B", "2")]
        for method, status in (("HEAD", "200 OK"), ("GET", "304 Not Modified")):
            for body in ([], [b"12345"], [b"123"], Body()):
                with self.subTest(method=method, status=status, body=body):
                    got = answer(returns(body, status, headers), method)
                    self.assertEqual((got.headers, got.cut, got.body), (headers, False, b""))

    def test_content_length_goes_from_204(self):
        for method in ("GET", "HEAD"):
            headers = [("X-A", "1"), ("content-length", "5"), ("X-B", "2")]
            got = answer(returns([b"12345"], "204 No Content", headers), method)
            self.assertEqual(got.headers, [("X-A", "1"), ("X-B", "2")])

    def test_a_value_that_is_called_content_length_stays(self):
        headers = [("Access-Control-Expose-Headers", "Content-Length"), ("Content-Length", "0"), ("X-B", "2")]
        got = answer(returns([], "204 No Content", headers))
        self.assertEqual(got.headers, [headers[0], headers[2]])

    def test_a_file_is_not_read(self):
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.seek(0)
            got = answer(lambda environ, start: (start("200 OK", []), environ["wsgi.file_wrapper"](file))[1], "HEAD")
        self.assertEqual((got.body, got.cut, got.headers), (b"", False, []))


class TestHeaderRules(unittest.TestCase):
    def refused(self, header):
        got = answer(returns([b"x"], headers=[("X-Good", "1"), header]))
        self.assertEqual(got.kinds, [ERROR], header)
        # Refused each time, not only the first.
        self.assertEqual(answer(returns([b"x"], headers=[header])).kinds, [ERROR], header)

    def test_names_that_are_no_tokens(self):
        for name in ("", "X A", "X:", "X\r\nY", "X\n", "X\0", "\xe9", "X(", "X\t", "X\u212a", '"X"'):
            with self.subTest(name=name):
                self.refused((name, "1"))

    def test_values_with_control_characters(self):
        for value in ("a\r\nX-Injected: 1", "a\n", "a\r", "\r", "a\0b", "a\x7f", "a\x01", "\u0100", "a\u20ac"):
            with self.subTest(value=value):
                self.refused(("X-A", value))

    def test_types(self):
        for header in (
            ("X-A", 1),
            ("X-A", b"1"),
            (b"X-A", "1"),
            ("X-A", None),
            (None, "1"),
            ("X-A",),
            ("X", "1", "2"),
            "X",
        ):
            with self.subTest(header=header):
                self.refused(header)

    def test_unhashable_headers(self):
        self.assertEqual(answer(returns([b"x"], headers=[["X-A", "1"]])).headers[0], ("X-A", "1"))
        self.refused(("X-A", ["1"]))

    def test_headers_that_are_no_list(self):
        for headers in (None, 5, "ab"):
            with self.subTest(headers=headers):

                def app(environ, start_response, headers=headers):
                    start_response("200 OK", headers)
                    return [b"x"]

                self.assertEqual(answer(app).kinds, [ERROR])

    def test_order_duplicates_and_case_stay(self):
        headers = [("Set-Cookie", "a=1"), ("x-LOWER", "1"), ("Set-Cookie", "b=2"), ("X-Lower", "2")]
        self.assertEqual(answer(returns(Body(b"x"), headers=headers)).headers, headers)

    def test_latin_1_passes_and_blanks_around_go(self):
        headers = [("X-A", " \t\xe9 \xff\t "), ("X-Empty", ""), ("X-Blank", "  ")]
        self.assertEqual(
            answer(returns(Body(b"x"), headers=headers)).headers,
            [("X-A", "\xe9 \xff"), ("X-Empty", ""), ("X-Blank", "")],
        )

    def test_hop_by_hop_headers_and_those_of_the_front_are_dropped(self):
        names = ["Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailers"]
        names += ["Transfer-Encoding", "Upgrade", "Server", "Date"]
        headers = [("X-A", "1"), *((name, "chunked") for name in names), ("X-B", "2")]
        for case in (str, str.lower, str.upper):
            varied = [(case(name), value) for name, value in headers]
            with self.subTest(case=case):
                self.assertEqual(answer(returns(Body(b"x"), headers=varied)).headers, [varied[0], varied[-1]])

    def test_a_dropped_header_is_checked_all_the_same(self):
        self.refused(("Connection", "a\r\nb"))

    def test_two_hundred_headers_of_1000_bytes(self):
        headers = [(f"X-{number}", "v" * 1000) for number in range(200)]
        self.assertEqual(answer(returns(Body(b"x"), headers=headers)).headers, headers)

    def test_the_cache_stays_bounded(self):
        for number in range(wsgi._CACHE_LIMIT * 2 + 10):
            wsgi._check_header(("X-N", str(number)))
            wsgi._check_status(f"200 {number}")
        self.assertLessEqual(len(wsgi._known_headers), wsgi._CACHE_LIMIT)

    def test_the_cache_stays_bounded_also_with_long_values(self):
        for number in range(1000):
            got = answer(returns([], headers=[("Location", "/%d%s" % (number, "a" * 8000))]))
            self.assertTrue(got.headers[0][1].startswith("/%da" % number))
        self.assertLess(sum(len(value) for _, value in wsgi._known_headers), 2_000_000)
        self.assertLessEqual(len(wsgi._status_text), wsgi._CACHE_LIMIT)

    def test_an_equal_key_of_another_type_is_not_taken_from_the_cache(self):
        answer(returns([b"x"], headers=[("X-A", "1")]))
        self.refused(("X-A", 1))
        self.refused(("X-A", b"1"))


class TestStatus(unittest.TestCase):
    def test_good(self):
        for text, status, reason in (
            ("200 OK", 200, "OK"),
            ("200 ", 200, ""),
            ("200", 200, ""),
            ("404 Not Found at all", 404, "Not Found at all"),
            ("999 \xe9", 999, "\xe9"),
        ):
            with self.subTest(text=text):
                got = answer(returns([b"x"], text))
                self.assertEqual((got.status, got.reason), (status, reason))

    def test_bad(self):
        for text in (
            "200 OK\r\nX-Injected: 1",
            "200 OK\n",
            "200\0OK",
            "200 \0",
            "OK",
            "",
            "20 OK",
            "2000 OK",
            "099 Low",
            "-20 OK",
            "200OK",
            " 200 OK",
            "2\u0660\u0660 OK",
            "200 \u20ac",
            b"200 OK",
            200,
            None,
            ["200 OK"],
        ):
            with self.subTest(text=text):
                self.assertEqual(answer(returns([b"x"], text)).kinds, [ERROR])


class TestBody(unittest.TestCase):
    def test_pieces_leave_one_by_one(self):
        seen = []
        slot = FakeSlot()

        def app(environ, start_response):
            start_response("200 OK", [])
            for number in range(3):
                yield b"%d" % number
                seen.append(slot.wire[-1:])

        got = answer(app, slot=slot)
        self.assertEqual(seen, [b"0", b"1", b"2"])
        self.assertEqual(got.kinds, [HEAD, DATA, DATA, END])

    def test_empty_pieces_are_skipped(self):
        got = answer(returns(Body(b"", b"", b"abc", b"", b"def")))
        self.assertEqual((got.kinds, got.body), ([HEAD, DATA, DATA, END], b"abcdef"))
        self.assertEqual([frame.flags & LAST for frame in got.frames], [0, 0, LAST, 0])

    def test_a_whole_body_is_the_last_piece(self):
        length = [("Content-Length", "6")]
        for body, flags in (
            (Body(b"abcdef"), [LAST, 0]),
            (Body(b"abc", b"def"), [0, LAST, 0]),
            (Body(b"abcd", b"efghi", b"j"), [0, LAST, 0]),
            (iter([b"abc", b"def"]), [0, LAST, 0]),
            (Body(b"abc"), [0, 0]),
        ):
            with self.subTest(flags=flags):
                got = answer(returns(body, headers=length))
                self.assertEqual([frame.flags & LAST for frame in got.frames if frame.kind != END], flags[:-1])

    def test_an_answer_without_a_body_is_over_with_its_first_piece(self):
        for method, status, body, left in (
            ("HEAD", "200 OK", Body(b"", b"abc", b"def"), [b"def"]),
            ("GET", "204 No Content", Body(b"abc", b"def"), [b"def"]),
            ("GET", "304 Not Modified", Body(), []),
        ):
            with self.subTest(method=method, status=status):
                got = answer(returns(body, status), method)
                self.assertEqual([(frame.kind, frame.flags) for frame in got.frames], [(HEAD, LAST), (END, 0)])
                self.assertEqual((body.pieces, body.closed), (left, 1))

    def test_no_piece_at_all(self):
        for body in (Body(), Body(b"", b""), iter(())):
            with self.subTest(body=body):
                got = answer(returns(body))
                self.assertEqual((got.status, got.body, got.cut), (200, b"", False))

    def test_no_bytes_before_the_head(self):
        for body in (["text"], Body("text"), Body(""), Body(None), Body(1), [b"a", "b"], None, 5, "text", b"bytes"):
            with self.subTest(body=body):
                self.assertEqual(answer(returns(body)).kinds, [ERROR])

    def test_no_bytes_later_cut_the_answer(self):
        for piece in ("text", "", None, 0, bytearray(b"x")):
            with self.subTest(piece=piece):
                got = answer(returns(Body(b"first", piece)))
                self.assertEqual((got.kinds, got.body, got.cut), ([HEAD, END], b"first", True))

    def test_an_object_with_only_getitem(self):
        class Old:
            def __getitem__(self, index):
                return [b"a", b"b"][index]

        self.assertEqual(answer(returns(Old())).body, b"ab")

    def test_early_hints(self):
        def app(environ, start_response):
            environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("Connection", "x"), ("Link", "</b.js>")])
            start_response("200 OK", [])
            environ["wsgi.early_hints"]([("Link", "</c>")])
            yield b"body"
            environ["wsgi.early_hints"]([("Link", "</late>")])

        got = answer(app)
        self.assertEqual(got.kinds, [HINTS, HINTS, HEAD, END])
        self.assertEqual(got.hints, ["Link: </a.css>; rel=preload\r\nLink: </b.js>\r\n", "Link: </c>\r\n"])

    def test_bad_early_hints(self):
        def app(environ, start_response):
            environ["wsgi.early_hints"]([("Link", "a\r\nb")])

        self.assertEqual(answer(app).kinds, [ERROR])


class TestClose(unittest.TestCase):
    def test_once_however_it_ends(self):
        for name, body in (
            ("normal", Body(b"a", b"b")),
            ("empty", Body()),
            ("raises at once", Body(ValueError("first"))),
            ("raises later", Body(b"a", ValueError("later"))),
            ("no bytes", Body(b"a", "text")),
            ("exits", Body(b"a", SystemExit(1))),
        ):
            with self.subTest(name=name):
                answer(returns(body))
                self.assertEqual(body.closed, 1)

    def test_for_head_and_without_start_response(self):
        body = Body(b"a")
        answer(returns(body), "HEAD")
        self.assertEqual(body.closed, 1)
        body = Body(b"a")
        answer(lambda environ, start_response: body)
        self.assertEqual(body.closed, 1)

    def test_a_list_with_close(self):
        class Closing(list):
            closed = 0

            def close(self):
                self.closed += 1

        body = Closing([b"a", b"b"])
        got = answer(returns(body))
        self.assertEqual((got.body, body.closed), (b"ab", 1))

    def test_when_the_connection_to_the_front_breaks(self):
        slot = FakeSlot()

        def fail():
            raise slot.Broken

        slot.before_send = fail
        body = Body(b"a", b"b")
        with self.assertRaises(slot.Broken):
            answer(returns(body), slot=slot)
        self.assertEqual(body.closed, 1)

    def test_when_the_client_left(self):
        slot = FakeSlot()

        def leave():
            slot.cancelled = {7}
            return b"b"

        body = Body(b"a", leave, b"c")
        got = answer(returns(body), slot=slot)
        self.assertEqual((body.closed, body.pieces), (1, [b"c"]))
        self.assertEqual((got.body, got.cut), (b"a", True))
        self.assertEqual(slot.logged, [])

    def test_when_the_client_left_before_the_first_piece(self):
        slot = FakeSlot()
        slot.cancelled = {7}
        body = Body(b"a", b"b")
        got = answer(returns(body), slot=slot)
        self.assertEqual((got.kinds, body.closed, slot.logged), ([ERROR], 1, []))

    def test_the_client_of_another_request_left(self):
        slot = FakeSlot()
        slot.cancelled = {6}
        self.assertEqual(answer(returns(Body(b"a", b"b")), slot=slot).body, b"ab")

    def test_a_generator_sees_the_exit(self):
        seen = []
        slot = FakeSlot()

        def app(environ, start_response):
            start_response("200 OK", [])
            try:
                while True:
                    slot.cancelled = {7} if seen else set()
                    seen.append(1)
                    yield b"tick"
            finally:
                seen.append("closed")

        answer(app, slot=slot)
        self.assertEqual(seen, [1, 1, "closed"])

    def test_an_error_in_close_does_not_cut_a_whole_answer(self):
        class Failing(Body):
            def close(self):
                raise ValueError("close")

        got = answer(returns(Failing(b"a", b"b")))
        self.assertEqual((got.body, got.cut), (b"ab", False))
        self.assertTrue(got.logged)

    def test_an_error_in_close_is_logged(self):
        class Failing(Body):
            def close(self):
                raise ValueError("close")

        self.assertIn("close", answer(returns(Failing(b"a"))).logged[0])


class TestErrors(unittest.TestCase):
    ERRORS = (
        ValueError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(),
        OSError(2, "gone"),
        BrokenPipeError(),
        ConnectionResetError(),
        TimeoutError(),
        MemoryError(),
        GeneratorExit(),
        BaseException("bare"),
    )

    def test_in_the_call(self):
        for error in self.ERRORS:
            with self.subTest(error=error):

                def app(environ, start_response, error=error):
                    raise error

                got = answer(app)
                self.assertEqual(got.kinds, [ERROR])
                self.assertEqual((got.frames[0].id, got.frames[0].status), (7, 500))
                self.assertEqual(len(got.logged), 1)
                self.assertIn("/raw", got.logged[0])

    def test_after_start_response(self):
        for error in self.ERRORS:
            with self.subTest(error=error):

                def app(environ, start_response, error=error):
                    start_response("200 OK", [])
                    raise error

                self.assertEqual(answer(app).kinds, [ERROR])

    def test_in_the_first_step_of_the_iterable(self):
        for error in self.ERRORS:
            if isinstance(error, StopIteration):
                continue  # the end of the iterable
            with self.subTest(error=error):
                self.assertEqual(answer(returns(Body(error))).kinds, [ERROR])

    def test_after_output(self):
        for error in self.ERRORS:
            if isinstance(error, StopIteration):
                continue
            with self.subTest(error=error):
                got = answer(returns(Body(b"first", error)))
                self.assertEqual((got.kinds, got.body, got.cut), ([HEAD, END], b"first", True))
                self.assertEqual(len(got.logged), 1)

    def test_the_time_in_the_app_is_told(self):
        def boom(environ, start_response):
            raise ValueError

        for name, app in (("whole", returns([b"x"])), ("pieces", returns(Body(b"x"))), ("error", boom)):
            with self.subTest(name=name), mock.patch.object(wsgi, "_perf_counter", chain([1.0], repeat(1.25)).__next__):
                self.assertEqual(answer(app).frames[-1].app_us, 250_000)


class TestFileWrapper(unittest.TestCase):
    def setUp(self):
        self.file = tempfile.NamedTemporaryFile()
        self.addCleanup(self.file.close)
        self.file.write(bytes(range(256)) * 2048)
        self.file.flush()
        self.size = 256 * 2048
        self.content = bytes(range(256)) * 2048

    def get(self, filelike, headers=(), method="GET", slot=None, write=None):
        def app(environ, start_response):
            writer = start_response("200 OK", list(headers))
            if write is not None:
                writer(write)
            return environ["wsgi.file_wrapper"](filelike)

        return answer(app, method, slot=slot)

    def open(self, offset=0):
        file = open(self.file.name, "rb")
        self.addCleanup(file.close)
        file.seek(offset)
        return file

    def test_a_file_is_read_by_its_descriptor_and_goes_with_its_length(self):
        file = self.open()
        with mock.patch.object(wsgi.FileWrapper, "__next__", side_effect=AssertionError("it was read")):
            got = self.get(file)
        self.assertEqual(got.headers, [("Content-Length", str(self.size))])
        self.assertEqual(got.body, self.content)
        self.assertFalse(got.cut)
        self.assertTrue(file.closed)
        self.assertEqual(max(len(frame.body) for frame in got.frames), wsgi.FILE_FRAME_BYTES)

    def test_from_its_position(self):
        for offset in (self.size - 10, self.size, self.size + 10):
            with self.subTest(offset=offset):
                got = self.get(self.open(offset))
                self.assertEqual((got.body, got.cut), (self.content[offset:], False))
                self.assertEqual(got.headers, [("Content-Length", str(len(self.content[offset:])))])

    def test_a_position_moved_by_reading(self):
        file = self.open()
        file.read(3)
        self.assertEqual(self.get(file).body, self.content[3:])

    def test_a_shorter_content_length(self):
        got = self.get(self.open(), [("Content-Length", "5")])
        self.assertEqual((got.body, got.cut), (self.content[:5], False))

    def test_a_longer_content_length(self):
        got = self.get(self.open(self.size - 5), [("Content-Length", "10")])
        self.assertEqual((got.body, got.cut), (self.content[-5:], True))

    def test_a_file_that_cannot_be_sent_is_read(self):
        file = io.BytesIO(b"x" * 20_000)
        got = self.get(file)
        self.assertEqual((got.body, got.cut, got.headers), (b"x" * 20_000, False, []))
        self.assertTrue(file.closed)

    def test_only_read(self):
        class Reader:
            left = 3

            def read(self, size):
                self.left -= 1
                return b"ab" if self.left >= 0 else b""

        self.assertEqual(self.get(Reader()).body, b"ababab")

    def test_a_pipe_is_read(self):
        read, write = os.pipe()
        os.write(write, b"through a pipe")
        os.close(write)
        with os.fdopen(read, "rb") as file:
            self.assertEqual(self.get(file).body, b"through a pipe")

    def test_the_block_size(self):
        sizes = []

        class Reader:
            def read(self, size):
                sizes.append(size)
                return b""

        list(wsgi.FileWrapper(Reader()))
        list(wsgi.FileWrapper(Reader(), 10))
        self.assertEqual(sizes, [8192, 10])

    def test_close_when_the_client_left_between_two_frames(self):
        slot = FakeSlot()
        sent = []

        def leave():
            sent.append(1)
            if len(sent) == 2:
                slot.cancelled = {7}

        slot.before_send = leave
        file = self.open()
        got = self.get(file, slot=slot)
        self.assertTrue(got.cut)
        self.assertTrue(file.closed)
        self.assertEqual(len(got.body), wsgi.FILE_FRAME_BYTES)

    def test_no_start_response(self):
        file = self.open()
        got = answer(lambda environ, start_response: environ["wsgi.file_wrapper"](file))
        self.assertEqual(got.kinds, [ERROR])
        self.assertTrue(file.closed)

    def test_wrapped_once_more(self):
        got = answer(returns(iter(wsgi.FileWrapper(io.BytesIO(b"abc"), 2))))
        self.assertEqual(got.body, b"abc")

    def test_behind_what_was_written(self):
        self.assertEqual(self.get(self.open(self.size - 5), write=b"head:").body, b"head:" + self.content[-5:])

    def test_behind_what_was_written_up_to_the_content_length(self):
        got = self.get(self.open(self.size - 10), [("Content-Length", "10")], write=b"12345")
        self.assertEqual(got.body, b"12345" + self.content[-10:-5])


class TestInput(unittest.TestCase):
    def echo(self, environ, start_response):
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(), b"|", environ["PATH_INFO"].encode("latin-1")]

    def test_from_the_frame(self):
        self.assertEqual(answer(self.echo, "POST", body=b"line\nrest").body, b"line\nrest|/")
        self.assertEqual(answer(self.echo).body, b"|/")

    def test_from_a_file_which_is_closed_afterwards(self):
        seen = []

        def app(environ, start_response):
            seen.append(environ["wsgi.input"])
            return self.echo(environ, start_response)

        with tempfile.NamedTemporaryFile() as file:
            file.write(b"spooled")
            file.flush()
            self.assertEqual(answer(app, body=os.fsencode(file.name), flags=BODY_IN_FILE).body, b"spooled|/")
        self.assertTrue(seen[0].closed)

    def test_a_view_of_it_that_the_app_keeps_stays_valid(self):
        kept = []

        def app(environ, start_response):
            kept.append(environ["wsgi.input"].getbuffer())
            return self.echo(environ, start_response)

        got = answer(app, "POST", body=b"body")
        self.assertEqual((got.kinds, got.body, bytes(kept[0])), ([ANSWER], b"body|/", b"body"))

    def test_a_file_whose_descriptor_the_app_has_closed_costs_the_request_only(self):
        def app(environ, start_response):
            os.close(environ["wsgi.input"].fileno())
            return returns([b"one"])(environ, start_response)

        with tempfile.NamedTemporaryFile() as file:
            self.assertEqual(answer(app, body=os.fsencode(file.name), flags=BODY_IN_FILE).kinds, [ANSWER])

    def test_write_of_a_request_that_has_ended_sends_nothing(self):
        kept = []

        def app(environ, start_response):
            kept.append(start_response("200 OK", TEXT))
            return [b"one"]

        slot = FakeSlot()
        answer(app, slot=slot)
        with self.assertRaisesRegex(AssertionError, "ended"):
            kept[0](b"late")
        self.assertEqual([frame.body for frame in slot.frames()], [b"one"])

    def test_more_time_may_be_hours(self):
        for seconds, milliseconds in ((0.5, 500), (86_400, 86_400_000), (float("inf"), 0xFFFFFFFF), (-1, 0)):

            def app(environ, start_response, seconds=seconds):
                environ["nunicorn.extend_deadline"](seconds)
                start_response("200 OK", TEXT)
                return [b"ok"]

            self.assertEqual(answer(app).frames[0].app_us, milliseconds)

    def test_an_answer_that_takes_hours(self):
        def stream(environ, start_response):
            start_response("200 OK", TEXT)
            yield b"one"

        def fails(environ, start_response):
            raise ValueError

        for app, kinds in ((returns([b"one"]), [ANSWER]), (stream, [HEAD, END]), (fails, [ERROR])):
            clock = chain([0.0], repeat(7200.0))
            with self.subTest(kinds=kinds), mock.patch.object(wsgi, "_perf_counter", clock.__next__):
                got = answer(app)
                self.assertEqual((got.kinds, got.frames[-1].app_us), (kinds, 0xFFFFFFFF))

    def test_a_file_that_is_gone_fails_the_request_only_and_is_logged_if_its_folder_is_gone_too(self):
        removed = os.path.join(tempfile.gettempdir(), "nunicorn-no-such-body")
        for gone, is_logged in ((removed, False), (os.path.join(removed, "body"), True)):
            with self.subTest(gone=gone):
                got = answer(self.echo, body=os.fsencode(gone), flags=BODY_IN_FILE)
                self.assertEqual((got.kinds, bool(got.logged)), ([ERROR], is_logged))

    def test_django_that_is_only_imported_is_not_told_of_a_request_without_an_answer(self):
        def fails(environ, start_response):
            raise ValueError

        for configured in (False, True):
            django = mock.Mock()
            django.settings.configured = configured
            django.signals.request_finished.send.side_effect = OSError if configured else None
            with self.subTest(configured=configured), mock.patch.dict(sys.modules, {"django.core.handlers.wsgi": django}):
                got = answer(fails)
                self.assertEqual((got.kinds, len(got.logged)), ([ERROR], 2 if configured else 1))
                self.assertEqual(django.signals.request_finished.send.called, configured)

    def test_a_path_that_is_still_encoded(self):
        got = answer(self.echo, environ={"PATH_INFO": "/a%00b%C3%A9%zz%4"}, flags=PATH_ENCODED)
        self.assertEqual(got.body, b"|/a\0b\xc3\xa9%zz%4")
        self.assertEqual(answer(self.echo, environ={"PATH_INFO": "/a%00"}).body, b"|/a%00")

    def test_environ_is_a_new_dict_each_time(self):
        seen = []

        def app(environ, start_response):
            seen.append(environ)
            environ["X"] = 1
            return returns([b""])(environ, start_response)

        base = {"wsgi.run_once": False}
        for number in (1, 2):
            wsgi.run(app, base, FakeSlot(), (number, 0, b"REQUEST_METHOD\0GET\0PATH_INFO\0/", b""))
        self.assertEqual(base, {"wsgi.run_once": False})
        self.assertIsNot(seen[0], seen[1])
        self.assertIs(type(seen[0]), dict)
        self.assertEqual(seen[1]["PATH_INFO"], "/")

    def test_values_may_be_empty(self):
        seen = {}

        def app(environ, start_response):
            seen.update(environ)
            return returns([b""])(environ, start_response)

        answer(app, environ={"QUERY_STRING": "", "HTTP_X": "", "Z": "\xe9\xff"})
        self.assertEqual((seen["QUERY_STRING"], seen["HTTP_X"], seen["Z"]), ("", "", "\xe9\xff"))


if __name__ == "__main__":
    unittest.main()
