"""A WSGI application that says what it was asked, as JSON; below /verify it is the service that builtin:auth-request asks, and
says the same in the field X-Auth-Saw."""

import json
import wsgiref.util

TELLING = ("HTTP_HOST", "HTTP_FORWARDED", "HTTP_X_")


def application(environ, start_response):
    seen = {
        "scheme": environ["wsgi.url_scheme"],
        "url": wsgiref.util.request_uri(environ),
        "port": environ["SERVER_PORT"],
        "fields": {
            name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith(TELLING)
        },
    }
    if environ["PATH_INFO"] == "/verify":
        start_response("200 OK", [("x-auth-saw", json.dumps(seen["fields"])), ("content-length", "0")])
        return []
    body = json.dumps(seen).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]
