#!/usr/bin/env python3
"""A server of the websockets library; what it does with a connection is said by the path."""

import asyncio
import json
import urllib.parse

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

# How connections with a tag ended: (code, reason).
ended = {}


async def echo(connection, query):
    async for message in connection:
        await connection.send(message)


async def fragments(connection, query):
    """Answers how many fragments each message came in, and then the message in as many."""
    while True:
        pieces = [piece async for piece in connection.recv_streaming()]
        await connection.send(str(len(pieces)))
        await connection.send(pieces)


async def close(connection, query):
    await connection.recv()
    await connection.close(int(query["code"]), query.get("reason", ""))


async def ping(connection, query):
    """Pings the client, and says how long the payload was that came back."""
    await (await connection.ping(b"x" * 125))
    await connection.send("answered")
    await connection.recv()


async def push(connection, query):
    for n in range(int(query["count"])):
        await connection.send(str(n))


async def tell(connection, query):
    """How the connection with this tag ended."""
    for _ in range(500):
        if query["tag"] in ended:
            break
        await asyncio.sleep(0.02)
    await connection.send(json.dumps(ended.get(query["tag"])))


PATHS = {"/echo": echo, "/fragments": fragments, "/close": close, "/ping": ping, "/push": push, "/tell": tell}


async def handle(connection):
    target = urllib.parse.urlsplit(connection.request.path)
    query = dict(urllib.parse.parse_qsl(target.query))
    try:
        await PATHS[target.path](connection, query)
    except ConnectionClosed:
        pass
    finally:
        if "tag" in query and target.path != "/tell":
            await connection.wait_closed()
            ended[query["tag"]] = (connection.close_code, connection.close_reason)


def refuse(connection, request):
    if request.path.startswith("/forbidden"):
        return connection.respond(403, "not you\n")
    return None


def select(connection, offered):
    return "talk" if "talk" in offered else None


async def main():
    options = {"max_size": None, "ping_interval": None, "select_subprotocol": select, "process_request": refuse}
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening {host}:{port}", flush=True)
        await server.serve_forever()


asyncio.run(main())
