"""HTTP/2 connections to endpoints that go silent, and servers that count the PINGs by which that is noticed."""

import concurrent.futures
import itertools
import os
import pathlib
import signal
import sys
import time

import grpc

from common import HERE, Pools, fetch
from kit import Program, Server, accepts, equal, expect, free_address, scratch, until

# `http2.ping-interval` and `http2.ping-timeout`, in seconds; a new connection has the latter to show that somebody is there.
INTERVAL, TIMEOUT = 0.6, 0.4
NOTICED = INTERVAL + 2 * TIMEOUT
# `timeouts.response-head` of the listeners, in seconds.
RESPONSE_HEAD = 4.0
# For a busy machine.
SLACK = 1.0
# Endpoints that were ejected are out of use for 10 s.
BACK = 13.0
ENHANCE_YOUR_CALM = 11
numbers = itertools.count()
REQUESTS = 12


def nghttpd(name):
    """nghttpd with a single file, in which is its name."""
    folder = scratch() / name
    folder.mkdir()
    (folder / "name").write_text(name)
    host, port = free_address().split(":")
    server = Program(["nghttpd", "--no-tls", "--address", host, "--htdocs", folder, port], name=name)
    server.address = f"{host}:{port}"
    until(lambda: accepts(server.address), "nghttpd listens")
    return server


def node(name):
    return Server(["node", HERE / "http2.js", name], name=name)


def both_answer(address, names):
    """Waits until the answers to requests one after the other are from both."""
    until(lambda: {fetch(address, "/name")[1] for _ in range(4)} == set(names), "answers of both", deadline=BACK)


class Stopped:
    """A server that does not run for a while; its kernel takes and acknowledges everything."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.server.signal(signal.SIGSTOP)

    def __exit__(self, *_):
        self.server.signal(signal.SIGCONT)


def new_requests(address, servers, known):
    """Those that come while one is silent are answered by the other, and then by both again. `known` says whether there
    are connections to both before."""
    if known:
        both_answer(address, servers)
    silent, other = servers
    with Stopped(servers[silent]):
        answers = [fetch(address, "/name") for _ in range(REQUESTS)]
    wrong = [f"{status} after {seconds:.1f} s" for status, name, seconds in answers if (status, name) != (200, other)]
    equal(wrong, [], "answers that are not the other's")
    seconds = [seconds for _, _, seconds in answers]
    expect(max(seconds) < NOTICED + SLACK, f"one was answered after {max(seconds):.1f} s")
    waited = sum(s > INTERVAL / 2 for s in seconds)
    expect(waited <= len(seconds) // 2, f"{waited} of {len(seconds)} had to wait")
    began = time.monotonic()
    both_answer(address, servers)
    return f"longest {max(seconds):.1f} s, {waited} of {len(seconds)} waited, back after {time.monotonic() - began:.1f} s"


def under_way(address, servers, method):
    """A request that waits on a connection which goes silent is sent again if it may be, and else is over in time."""
    both_answer(address, servers)
    names = list(servers)
    before = {name: len(servers[name].lines) for name in names}

    def asked():
        return next((name for name in names if "begun" in servers[name].lines[before[name] :]), None)

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        answer = thread.submit(fetch, address, "/slow?ms=1000", method)
        silent = until(asked, "the request arrives")
        with Stopped(servers[silent]):
            status, name, seconds = answer.result(timeout=30)
    if method == "GET":
        other = names[1 - names.index(silent)]
        equal((status, name), (200, other), "answer")
        bound = NOTICED + 1.0
    else:
        equal(status, 504, "status")
        bound = RESPONSE_HEAD
    expect(seconds < bound + SLACK, f"took {seconds:.1f} s")
    both_answer(address, servers)
    return f"{status} after {seconds:.1f} s"


def is_strict(address):
    """What makes the case: this server objects to PINGs that come too often."""
    with Program(["node", HERE / "pings.js", address]) as client:
        client.line(lambda line: line == f"goaway {ENHANCE_YOUR_CALM}", deadline=20)


def varint(number):
    pieces = bytearray()
    while number > 0x7F:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])


def streamed(address, method, request, count):
    """A call whose messages come with long pauses, to its end."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream(method)(request, timeout=30)
        equal(sum(1 for _ in call), count, "messages")
        equal(call.code(), grpc.StatusCode.OK, "status")


def counted_pings(servers, address, calls):
    """Calls that are quiet for much longer than the interval of PINGs run to their end, one connection for all of it."""
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        done = [threads.submit(is_strict, server) for server in servers.values()]
        done += [threads.submit(streamed, address[name], *call) for name, call in calls.items()]
        for each in done:
            each.result()


def grpc_go():
    """grpc-go's interoperability server."""
    binary = pathlib.Path(os.environ["FOREIGN_INTEROP"]) / "server"
    server = Program([binary, "-port=0"], name="grpc-go", environment={"GRPC_GO_LOG_SEVERITY_LEVEL": "info"})

    def port():
        lines = [line for line in server.stderr().splitlines() if "listening on" in line]
        return lines and lines[0].rsplit(":", 1)[1]

    server.address = f"127.0.0.1:{until(port, 'the interop server listens')}"
    return server


def counted_by_servers():
    count, pause = 4, 2_500
    # StreamingOutputCallRequest of grpc.testing: `response_parameters` with `size` and `interval_us`.
    parameters = b"\x08\x01\x10" + varint(pause * 1000)
    calls = {
        "grpcio": ("/foreign.Trickle/Trickle", b"%d %d" % (count, pause), count),
        "grpc-go": ("/grpc.testing.TestService/StreamingOutputCall", (b"\x12" + varint(len(parameters)) + parameters) * count, count),
    }
    with Server([sys.executable, HERE / "trickle.py"], name="grpcio") as grpcio, grpc_go() as go:
        servers = {"grpcio": grpcio.address, "grpc-go": go.address}
        options = "protocol: http2, http2: {ping-interval: 200ms, ping-timeout: 2s}"
        pools = {name: f'{{endpoints: ["{address}"], {options}}}' for name, address in servers.items()}
        with Pools(pools) as proxied:
            counted_pings(servers, proxied.address, calls)


def with_two(start, run, *arguments):
    """A case with two endpoints of its own, which `start` starts, behind a proxy of its own."""
    number = next(numbers)
    with start(f"first-{number}") as first, start(f"second-{number}") as second:
        options = f"protocol: http2, http2: {{ping-interval: {INTERVAL * 1000:.0f}ms, ping-timeout: {TIMEOUT * 1000:.0f}ms}}"
        pool = f'{{endpoints: ["{first.address}", "{second.address}"], {options}}}'
        # Connections are a worker's own.
        with Pools({"two": pool}, timeouts=f"{{response-head: {RESPONSE_HEAD:.0f}s}}", more="workers: 1") as proxied:
            return run(proxied.address["two"], {server.name: server for server in (first, second)}, *arguments)


def waiting():
    for start in (nghttpd, node):
        for known, how in ((True, ""), (False, " that is not connected yet")):
            name = f"a silent HTTP/2 endpoint{how} and new requests, {start.__name__}"
            yield name, with_two, start, new_requests, known
    for method in ("GET", "POST"):
        yield f"a silent HTTP/2 endpoint and a {method} under way", with_two, node, under_way, method
    yield "PINGs that servers for gRPC count", counted_by_servers
