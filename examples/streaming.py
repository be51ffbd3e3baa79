"""An answer in pieces: `nunicorn --threads 8 --chdir examples streaming:application`, then `curl -N http://127.0.0.1:8000/?5`.

Each piece leaves as soon as it is yielded. A stream holds its thread until it ends, so give it threads. When the client
leaves, the generator is closed at the next piece, and what stands in `finally` runs.
"""

import time


def application(environ, start_response):
    query = environ["QUERY_STRING"]
    ticks = int(query) if query.isdecimal() else 3
    # X-Accel-Buffering tells nginx to pass the pieces on at once.
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
    return events(ticks, environ["wsgi.errors"])


def events(ticks, log):
    try:
        for tick in range(ticks):
            yield f"data: {tick} at {time.strftime('%X')}\n\n".encode()
            time.sleep(1)
    finally:
        log.write(f"a stream of {ticks} ticks has ended\n")
