"""The smallest app there is: `nunicorn hello:application`."""


def application(environ, start_response):
    body = f"Hello from {environ['SERVER_SOFTWARE']}: {environ['REQUEST_METHOD']} {environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
