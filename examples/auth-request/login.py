#!/usr/bin/env python3
"""An authorisation service: whoever has the token is Alice.

    login.py ADDRESS:PORT
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Login(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        known = self.headers.get("Authorization") == "Bearer open-sesame"
        self.send_response(200 if known else 401)
        if known:
            self.send_header("X-Forwarded-User", "alice")
        else:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


host, _, port = sys.argv[1].rpartition(":")
ThreadingHTTPServer((host, int(port)), Login).serve_forever()
