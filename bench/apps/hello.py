"""The trivial cases: a canned answer, a sleep, an echo."""

import time

BODY = b"Hello, world!\n"


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def sleep_20ms(environ, start_response):
    time.sleep(0.02)
    return application(environ, start_response)


def sleep_500ms(environ, start_response):
    time.sleep(0.5)
    return application(environ, start_response)


def echo(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
    return [body]
