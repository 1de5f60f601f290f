#!/usr/bin/env python3
"""The trial service on grpcio; server.js is the same on grpc-js, and README.md says what each method does."""

import argparse
import asyncio
import collections
import json
import signal

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Pings of the server's own, which the proxy has to answer.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    # Direct, the client's pings are not too many either.
    ("grpc.http2.max_ping_strikes", 0),
]

# What became of the calls that had a tag, of those that are tried again, and who waits for the health to change.
seen = {}
attempts = collections.Counter()
health = {"status": SERVING, "changed": None}


def metadata(context, name):
    return [value for key, value in context.invocation_metadata() if key == name]


class Tagged:
    """Remembers how a call with `x-tag` ends."""

    def __init__(self, context):
        self.tag = next(iter(metadata(context, "x-tag")), None)

    def __enter__(self):
        seen[self.tag] = "running"

    def __exit__(self, kind, *_):
        seen[self.tag] = "finished" if kind is None else "cancelled"


async def echo(request, context):
    asked = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-echo")]
    if asked:
        await context.send_initial_metadata(asked)
        context.set_trailing_metadata([("x-trailing" + key[len("x-echo") :], value) for key, value in asked])
    return request


async def delayed(request, context):
    await asyncio.sleep(int(request) / 1000)
    return request


async def collect(requests, context):
    count = size = 0
    async for message in requests:
        count += 1
        size += len(message)
    return b"%d %d" % (count, size)


async def count(request, context):
    number, size = map(int, request.split())
    for n in range(number):
        yield b"%08d" % n + bytes(size - 8)


async def converse(requests, context):
    with Tagged(context):
        await context.send_initial_metadata([("x-begun", "yes")])
        async for message in requests:
            yield message
        # The requests end when the call is cancelled, too, a moment before the cancellation itself arrives.
        await asyncio.sleep(0.1)


async def fail(request, context):
    wanted = json.loads(request)
    for n in range(wanted["after"]):
        yield b"%d" % n
    details = ("grpc-status-details-bin", bytes.fromhex(wanted["details"]))
    await context.abort(CODES[wanted["code"]], wanted["message"], (details, ("x-why", "asked")))


async def refuse(requests, context):
    """Ends after the first message, whatever the client still sends."""
    async for _ in requests:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
    return b"nothing came"


async def sleep(request, context):
    with Tagged(context):
        yield b"%d" % round((context.time_remaining() or 0) * 1000)
        await asyncio.sleep(60)


async def seen_of(request, context):
    return seen.get(request.decode(), "unknown").encode()


async def pushback(request, context):
    """Fails until the request's second try, and says when that is wanted."""
    tag, pause = request.decode().split()
    attempts[tag] += 1
    if attempts[tag] == 1:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "later", (("grpc-retry-pushback-ms", pause),))
    return b"%d %s" % (attempts[tag], "".join(metadata(context, "grpc-previous-rpc-attempts")).encode())


async def attempts_of(request, context):
    return b"%d" % attempts[request.decode()]


async def set_health(request, context):
    health["status"] = request
    changed, health["changed"] = health["changed"], asyncio.Event()
    changed.set()
    return b""


async def check(request, context):
    if request:
        await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return health["status"]


async def watch(request, context):
    while True:
        changed = health["changed"]
        yield health["status"]
        await changed.wait()


unary, up = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
down, both = grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
SERVICES = {
    "foreign.Trial": {
        "Echo": unary(echo),
        "Delayed": unary(delayed),
        "Collect": up(collect),
        "Count": down(count),
        "Converse": both(converse),
        "Fail": down(fail),
        "Refuse": up(refuse),
        "Sleep": down(sleep),
        "Seen": unary(seen_of),
        "Pushback": unary(pushback),
        "Attempts": unary(attempts_of),
        "SetHealth": unary(set_health),
    },
    "grpc.health.v1.Health": {"Check": unary(check), "Watch": down(watch)},
}


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--cert")
    arguments.add_argument("--key")
    arguments = arguments.parse_args()
    health["changed"] = asyncio.Event()
    server = grpc.aio.server(options=OPTIONS, compression=grpc.Compression.Gzip)
    for service, methods in SERVICES.items():
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
    address = f"127.0.0.1:{arguments.port}"
    if arguments.cert:
        with open(arguments.cert, "rb") as cert, open(arguments.key, "rb") as key:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    await server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()
    await server.stop(grace=5)


asyncio.run(main())
