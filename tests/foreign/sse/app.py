"""The event streams of server.js as a WSGI application, for gunicorn with threads; the paths are described there."""

import json
import os
import queue
import threading
import urllib.parse

streams = {}
lock = threading.Lock()


class Stream:
    def __init__(self):
        self.pieces = queue.SimpleQueue()
        self.open = self.left = False
        self.sent = 0

    def events(self):
        ended = False
        self.open = True
        try:
            # A comment at once, because gunicorn sends the head with the first piece only.
            yield b": begun\n\n"
            while True:
                try:
                    piece = self.pieces.get(timeout=0.2)
                except queue.Empty:
                    # A writer learns that nobody listens by writing.
                    yield b": still here\n\n"
                    continue
                if piece is None:
                    ended = True
                    return
                if piece == "break":
                    os._exit(1)
                yield piece
        finally:
            self.left = not ended


def application(environ, start_response):
    query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    with lock:
        stream = streams.setdefault(query.get("tag"), Stream())
    path = environ["PATH_INFO"]
    if path == "/events":
        start_response("200 OK", [("content-type", "text/event-stream"), ("cache-control", "no-store")])
        return stream.events()
    if path == "/go":
        data = "x" * int(query.get("size", 0))
        stream.pieces.put(f"id: {stream.sent}\ndata: {data}\n\n".encode())
        stream.sent += 1
    elif path == "/burst":
        for n in range(int(query["count"])):
            stream.pieces.put(f"data: {n}\n\n".encode())
    elif path == "/end":
        stream.pieces.put(None)
    elif path == "/break":
        stream.pieces.put("break")
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"open": stream.open, "left": stream.left}).encode()]
