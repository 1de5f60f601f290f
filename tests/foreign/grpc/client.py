#!/usr/bin/env python3
"""The cases on grpcio; client.js has the same on grpc-js. Usage: client.py ADDRESS CA|- CASE…

Prints a line of JSON for each case: its name, and what was wrong or null."""

import collections
import json
import queue
import sys
import threading
import time
import uuid

import grpc

MESSAGES = 20_000
ROUNDS = 3_000
MESSAGE = "Größe überschritten: 100 %, „schon wieder“ ✓"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 1,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Failed(Exception):
    pass


def equal(seen, wanted, what):
    if seen != wanted:
        raise Failed(f"{what}: {str(seen)[:200]!r}, not {str(wanted)[:200]!r}")


class Client:
    def __init__(self, address, ca):
        self.address, self.ca = address, ca
        self.channel = self.open()

    def open(self, options=(), **more):
        options = [*OPTIONS, *options]
        if self.ca is None:
            return grpc.insecure_channel(self.address, options, **more)
        with open(self.ca, "rb") as roots:
            credentials = grpc.ssl_channel_credentials(roots.read())
        options.append(("grpc.ssl_target_name_override", "localhost"))
        return grpc.secure_channel(self.address, credentials, options, **more)

    def unary(self, name, request, channel=None, **options):
        options = {"timeout": 60, **options}
        return (channel or self.channel).unary_unary(f"/foreign.Trial/{name}")(request, **options)

    def up(self, name, requests, **options):
        return self.channel.stream_unary(f"/foreign.Trial/{name}")(requests, timeout=60, **options)

    def down(self, name, request, **options):
        options = {"timeout": 60, **options}
        return self.channel.unary_stream(f"/foreign.Trial/{name}")(request, **options)

    def both(self, name, requests, channel=None, **options):
        options = {"timeout": 60, **options}
        return (channel or self.channel).stream_stream(f"/foreign.Trial/{name}")(requests, **options)

    def expect_seen(self, tag, wanted):
        ends = time.monotonic() + 10
        while (state := self.unary("Seen", tag.encode()).decode()) != wanted:
            if time.monotonic() > ends:
                raise Failed(f"the server saw the call {state}, not {wanted}")
            time.sleep(0.02)

    # ------------------------------------------------------------ cases

    def case_unary(self):
        for size in [0, 1, 100, 70_000]:
            equal(self.unary("Echo", b"x" * size), b"x" * size, f"{size} bytes")
        equal(self.up("Collect", iter([])), b"0 0", "an empty stream")
        equal(list(self.down("Count", b"0 8")), [], "an empty answer")
        equal(list(self.both("Converse", iter([]))), [], "empty both ways")

    def case_server_stream(self):
        n = 0
        for n, message in enumerate(self.down("Count", b"%d 32" % MESSAGES), 1):
            equal(message, b"%08d" % (n - 1) + bytes(24), f"message {n}")
        equal(n, MESSAGES, "messages")

    def case_client_stream(self):
        answer = self.up("Collect", (b"%08d" % n for n in range(MESSAGES)))
        equal(answer, b"%d %d" % (MESSAGES, 8 * MESSAGES), "messages and bytes")

    def case_both_streams(self):
        n = 0
        for n, message in enumerate(self.both("Converse", (b"%d" % n for n in range(MESSAGES))), 1):
            equal(message, b"%d" % (n - 1), f"message {n}")
        equal(n, MESSAGES, "messages")

    def ping_pong(self, pause):
        sent = queue.SimpleQueue()
        answers = self.both("Converse", iter(sent.get, None))
        for n in range(ROUNDS):
            sent.put(b"%d" % n)
            equal(next(answers), b"%d" % n, f"round {n}")
            if pause:
                time.sleep(pause)
        sent.put(None)
        equal(list(answers), [], "messages after the last")

    def case_ping_pong(self):
        self.ping_pong(0)

    def case_ping_pong_paced(self):
        self.ping_pong(0.001)

    def case_headers_first(self):
        # The head of the answer comes before any message does.
        sent = queue.SimpleQueue()
        answers = self.both("Converse", iter(sent.get, None), timeout=10)
        equal(dict(answers.initial_metadata()).get("x-begun"), "yes", "x-begun")
        sent.put(b"first")
        equal(next(answers), b"first", "the answer")
        sent.put(None)
        equal(list(answers), [], "messages after the last")

    def case_statuses(self):
        details = bytes(range(256))
        for code in grpc.StatusCode:
            number = code.value[0]
            if number == 0:
                continue
            for after in [0, 3]:
                wanted = {"code": number, "message": MESSAGE, "after": after, "details": details.hex()}
                call = self.down("Fail", json.dumps(wanted).encode())
                got = []
                try:
                    got.extend(call)
                    raise Failed(f"{code.name} after {after}: no error")
                except grpc.RpcError as error:
                    what = f"{code.name} after {after} messages"
                    equal((error.code(), error.details()), (code, MESSAGE), what)
                    trailing = dict(error.trailing_metadata())
                    equal(trailing.get("grpc-status-details-bin"), details, f"{what}: details")
                    equal(trailing.get("x-why"), "asked", f"{what}: x-why")
                equal(len(got), after, f"{code.name}: messages before the status")

    def case_unimplemented(self):
        try:
            self.unary("NoSuch", b"")
            raise Failed("no error")
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.UNIMPLEMENTED, "status")

    def case_metadata(self):
        sent = [
            ("x-echo-text", "plain, with: signs"),
            ("x-echo-many", "first"),
            ("x-echo-many", "second"),
            *((f"x-echo-{n}-bin", bytes(range(256))[-n:] if n else b"") for n in [0, 1, 2, 3, 256]),
        ]
        call = self.channel.unary_unary("/foreign.Trial/Echo").with_call
        _, done = call(b"", metadata=sent, timeout=10)

        def values(metadata, prefix):
            # Several lines of one name may arrive as one (RFC 9110 §5.2).
            found = collections.defaultdict(list)
            for key, value in metadata:
                if key.startswith(prefix):
                    found[key[len(prefix) :]] += [value] if isinstance(value, bytes) else value.split(", ")
            return dict(found)

        wanted = values(sent, "x-echo")
        wanted["-text"] = "plain, with: signs".split(", ")
        equal(values(done.initial_metadata(), "x-echo"), wanted, "initial metadata")
        equal(values(done.trailing_metadata(), "x-trailing"), wanted, "trailing metadata")

    def case_compression(self):
        with self.open(compression=grpc.Compression.Gzip) as channel:
            text = b"the same again and again, " * 40_000
            equal(self.unary("Echo", text, channel), text, "the message")
            many = [b"%d " % n * 100 for n in range(100)]
            equal(list(self.both("Converse", iter(many), channel)), many, "the stream")

    def case_deadline(self):
        tag = uuid.uuid4().hex
        call = self.down("Sleep", b"", timeout=0.5, metadata=[("x-tag", tag)])
        left = int(next(call))
        # Clocks are read in whole milliseconds, rounded up or down.
        if not 0 < left <= 505:
            raise Failed(f"the server was given {left} ms of 500")
        try:
            next(call)
            raise Failed("a second message")
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED, "status")
        self.expect_seen(tag, "cancelled")

    def case_cancellation(self):
        tag = uuid.uuid4().hex
        call = self.down("Sleep", b"", metadata=[("x-tag", tag)])
        next(call)
        call.cancel()
        self.expect_seen(tag, "cancelled")
        # While the client still has something to say.
        tag = uuid.uuid4().hex
        sent = queue.SimpleQueue()
        call = self.both("Converse", iter(sent.get, None), metadata=[("x-tag", tag)])
        sent.put(b"first")
        next(call)
        call.cancel()
        sent.put(None)
        self.expect_seen(tag, "cancelled")

    def case_large(self):
        message = b"0123456789abcdef" * (4 << 20)
        if self.unary("Echo", message) != message:
            raise Failed("64 MiB came back changed")

    def case_concurrent(self):
        call = self.channel.unary_unary("/foreign.Trial/Delayed").future
        calls = [call(b"50", timeout=60) for _ in range(1_000)]
        for running in calls:
            equal(running.result(), b"50", "answer")

    def case_refused_stream(self):
        # The status comes while the client is sending, and must not be lost to that.
        for _ in range(20):
            sent = queue.SimpleQueue()

            def requests():
                yield b"x" * 1000
                while sent.empty():
                    yield b"x" * 10_000

            try:
                self.up("Refuse", requests())
                raise Failed("no error")
            except grpc.RpcError as error:
                equal((error.code(), error.details()), (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough"), "status")
            finally:
                sent.put(None)

    def case_keepalive(self):
        options = [
            ("grpc.keepalive_time_ms", 100),
            ("grpc.keepalive_timeout_ms", 3000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        with self.open(options) as channel:
            states = []
            channel.subscribe(states.append)
            sent = queue.SimpleQueue()
            answers = self.both("Converse", iter(sent.get, None), channel)
            for _ in range(3):
                sent.put(b"here")
                equal(next(answers), b"here", "the answer")
                time.sleep(1.5)
            sent.put(None)
            equal(list(answers), [], "messages after the last")
            time.sleep(1.5)
            equal(self.unary("Echo", b"after", channel), b"after", "the answer after a pause")
            ready = sum(state is grpc.ChannelConnectivity.READY for state in states)
            equal(ready, 1, "connections")

    def case_health(self):
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        equal(check(b"", timeout=10), b"\x08\x01", "health")
        try:
            check(b"\x0a\x04none", timeout=10)
            raise Failed("no error")
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.NOT_FOUND, "status")
        watch = self.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
        for n, status in enumerate([b"\x08\x01", b"\x08\x02", b"\x08\x01"]):
            if n > 0:
                self.unary("SetHealth", status)
            equal(next(watch), status, "watched health")
        watch.cancel()

    def case_pushback(self):
        options = [("grpc.enable_retries", 1), ("grpc.service_config", RETRIES)]
        with self.open(options) as channel:
            tag = uuid.uuid4().hex
            answer = self.unary("Pushback", f"{tag} 20".encode(), channel)
            equal(answer, b"2 1", "tries, and tries before")
            tag = uuid.uuid4().hex
            try:
                self.unary("Pushback", f"{tag} -1".encode(), channel)
                raise Failed("tried again although the server forbade it")
            except grpc.RpcError as error:
                equal((error.code(), error.details()), (grpc.StatusCode.UNAVAILABLE, "later"), "status")
                pause = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
                equal(pause, "-1", "grpc-retry-pushback-ms")
            equal(self.unary("Attempts", tag.encode()), b"1", "tries")

    def steady(self):
        """Calls without a pause from eight threads until standard input ends; prints how many ended how."""
        counts, over, lock = collections.Counter(), threading.Event(), threading.Lock()

        def call():
            while not over.is_set():
                try:
                    self.unary("Delayed", b"2", timeout=20)
                    ended = "OK"
                except grpc.RpcError as error:
                    ended = f"{error.code().name}: {error.details()}"
                with lock:
                    counts[ended] += 1

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        print(json.dumps({"case": "steady", "running": True}), flush=True)
        sys.stdin.read()
        over.set()
        for thread in threads:
            thread.join()
        print(json.dumps({"case": "steady", "counts": counts}), flush=True)


def main():
    address, ca, *cases = sys.argv[1:]
    client = Client(address, None if ca == "-" else ca)
    for case in cases:
        if case == "steady":
            client.steady()
            continue
        try:
            getattr(client, f"case_{case}")()
            error = None
        except Failed as failed:
            error = str(failed)
        except grpc.RpcError as failed:
            error = f"{failed.code()}: {failed.details()}"
        except Exception as failed:
            error = repr(failed)
        print(json.dumps({"case": case, "error": error}), flush=True)


main()
