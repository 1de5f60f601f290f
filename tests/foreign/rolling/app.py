"""A WSGI application that answers its name after 20 ms. It prints when the first request for /counted comes."""

import os
import time

served = False


def application(environ, start_response):
    global served
    if environ["PATH_INFO"] == "/check":
        body = b"well\n"
    else:
        if environ["PATH_INFO"] == "/counted" and not served:
            print("first request", flush=True)
            served = True
        time.sleep(0.02)
        body = os.environ["SERVER_NAME"].encode() + b"\n"
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(body)))])
    return [body]
