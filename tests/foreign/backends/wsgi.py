#!/usr/bin/env python3
"""Servers of Python that send what they must not: the body of an application that has one for HEAD, 204 and 304 as well.

The argument names the server: cheroot, waitress or http.server."""

import http.server
import sys
import urllib.parse

STRAY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nstray"
STATUSES = {"204": "204 No Content", "304": "304 Not Modified"}


def answer(method, target):
    """Status and body: the target itself, or where there can be no body, one that looks like the next answer."""
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))
    status = STATUSES.get(query.get("status"), "200 OK")
    has_body = method != "HEAD" and status == "200 OK"
    return status, target.encode() if has_body else STRAY


def application(environ, start_response):
    target = environ["PATH_INFO"] + "?" + environ["QUERY_STRING"]
    status, body = answer(environ["REQUEST_METHOD"], target)
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment for each answer and its body.
    wbufsize = -1

    def do_GET(self):
        status, body = answer(self.command, self.path)
        self.send_response(int(status.split()[0]))
        # An answer of another status has none, and wrk would wait for the body that it announces.
        if status == "200 OK":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def main(name):
    if name == "cheroot":
        import cheroot.wsgi

        server = cheroot.wsgi.Server(("127.0.0.1", 0), application, numthreads=32)
        server.prepare()
        print(f"listening 127.0.0.1:{server.bind_addr[1]}", flush=True)
        server.serve()
    elif name == "waitress":
        import waitress

        server = waitress.create_server(application, listen="127.0.0.1:0", threads=8)
        print(f"listening 127.0.0.1:{server.effective_port}", flush=True)
        server.run()
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        print(f"listening 127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


main(sys.argv[1])
