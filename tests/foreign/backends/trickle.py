#!/usr/bin/env python3
"""A gRPC server with the rules on PINGs that grpcio has by itself: `Trickle` sends messages with long pauses.

The request is `NUMBER MILLISECONDS`."""

import concurrent.futures
import time

import grpc


def trickle(request, context):
    number, pause = map(int, request.split())
    for n in range(number):
        time.sleep(pause / 1000)
        yield b"%d" % n


server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
handlers = {"Trickle": grpc.unary_stream_rpc_method_handler(trickle)}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("foreign.Trickle", handlers)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"listening 127.0.0.1:{port}", flush=True)
server.wait_for_termination()
