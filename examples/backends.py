#!/usr/bin/env python3
"""Backends for the examples: each answers with its name, and to /headers also with what it was told about the client.

    backends.py NAME=ADDRESS:PORT…
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handler(name):
    class Backend(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body leave as one segment: in two, each answer waits for the peer's delayed acknowledgement (40 ms).
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self):
            text = name + "\n"
            if self.path == "/headers":
                fields = sorted((key.lower(), value) for key, value in self.headers.items())
                text += "".join(f"{key}: {value}\n" for key, value in fields if key.startswith("x-forwarded-"))
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Backend


def main():
    servers = []
    for argument in sys.argv[1:]:
        name, _, address = argument.partition("=")
        host, _, port = address.rpartition(":")
        servers.append(ThreadingHTTPServer((host, int(port)), handler(name)))
    if not servers:
        sys.exit(__doc__)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass


main()
