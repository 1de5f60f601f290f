"""A WSGI application that answers an upload before it has read it: all of it, as many bytes as the query says, or none."""

import urllib.parse


def application(environ, start_response):
    query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    left = int(query.get("read", 0))
    while left > 0 and (piece := environ["wsgi.input"].read(min(left, 65_536))):
        left -= len(piece)
    body = b"early answer\n"
    start_response("413 Content Too Large", [("content-type", "text/plain"), ("content-length", str(len(body)))])
    return [body]
