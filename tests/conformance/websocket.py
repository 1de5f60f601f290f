#!/usr/bin/env python3
"""WebSocket (RFC 6455, RFC 7692) against an echo server, direct and through the proxy: both must be the same.

    websocket.py serve                    an echo server; prints its port
    websocket.py compare DIRECT PROXIED   runs every case on both ports and prints those that differ

Each case also says what the server must answer, so that two silences do not count as a success.
"""

import asyncio
import base64
import concurrent.futures
import hashlib
import socket
import struct
import sys
import zlib

MESSAGE_MAX = 8 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MASK = b"\x12\x34\x56\x78"


# ---------------------------------------------------------------- frames


def frame(opcode, payload=b"", flags=FIN, masked=True):
    """A client's frame."""
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", flags | opcode, bit | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", flags | opcode, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", flags | opcode, bit | 127, len(payload))
    if not masked:
        return head + payload
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + MASK + body.to_bytes(len(payload), "big")


def close(code=1000, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


class Ended(Exception):
    pass


class Client:
    def __init__(self, port, extra):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ahead = b""
        fields = {
            "Host": "site",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
        }
        fields.update(extra)
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.socket.sendall("\r\n".join(["GET /echo HTTP/1.1", *lines, "", ""]).encode())

    def exactly(self, count):
        parts, have = [self.ahead], len(self.ahead)
        while have < count:
            try:
                part = self.socket.recv(1 << 16)
            except OSError:
                part = b""
            if not part:
                raise Ended
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self.ahead = data[count:]
        return data[:count]

    def handshake(self):
        """The status and what of the head a WebSocket client looks at."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.exactly(1)
        status, *lines = head.decode().split("\r\n")
        status = status.split(" ")[1]
        # `Connection` of a refusal concerns each connection for itself.
        wanted = ("sec-websocket-", "upgrade:") + (("connection:",) if status == "101" else ())
        return status, sorted(line.lower() for line in lines if line.lower().startswith(wanted))

    def frame(self):
        """The next frame as (first byte, payload)."""
        first, length = self.exactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", self.exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.exactly(8))
        return first, self.exactly(length)


# ---------------------------------------------------------------- cases


class Case:
    """`sends` go out one after the other; `code` is what the server closes with; `echoes` are the data frames before."""

    def __init__(self, name, sends, code=1000, echoes=None, extra=None, status="101"):
        self.name, self.sends, self.code = name, sends, code
        self.echoes, self.extra, self.status = echoes, extra or {}, status


def messages(name, *payloads, opcode=BINARY, piece=None):
    sends = [frame(opcode, payload) for payload in payloads]
    if piece:
        whole = b"".join(sends)
        sends = [whole[at : at + piece] for at in range(0, len(whole), piece)]
    return Case(name, [*sends, close()], echoes=list(payloads))


def framing():
    for length in (0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20, 4 << 20):
        yield messages(f"binary of {length} bytes", bytes(n % 251 for n in range(length % 65536)) * (1 + length // 65536))
        if length < 70000:
            yield messages(f"text of {length} bytes", b"t" * length, opcode=TEXT)
    for piece in (1, 2, 3, 7):
        yield messages(f"in pieces of {piece} bytes", b"a" * 200, b"b" * 130, piece=piece)
    yield messages("a megabyte in pieces of 997 bytes", b"c" * (1 << 20), piece=997)
    yield messages("a thousand messages", *[b"%d" % n for n in range(1000)])
    yield Case("not masked", [frame(TEXT, b"x", masked=False)], 1002)
    for name, bit in (("RSV1", RSV1), ("RSV2", RSV2), ("RSV3", RSV3)):
        yield Case(f"{name} without an extension", [frame(TEXT, b"x", FIN | bit)], 1002)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", [frame(opcode, b"x")], 1002)
    yield Case("a message too large", [frame(BINARY, b"x" * (MESSAGE_MAX + 1))], 1009)


def control():
    yield Case("ping", [frame(PING), close()], echoes=[])
    yield Case("ping with 125 bytes", [frame(PING, b"p" * 125), close()], echoes=[])
    yield Case("ping with 126 bytes", [frame(PING, b"p" * 126)], 1002)
    yield Case("ping in fragments", [frame(PING, b"p", flags=0)], 1002)
    yield Case("ten pings", [frame(PING, b"%d" % n) for n in range(10)] + [close()], echoes=[])
    yield Case("a pong nobody asked for", [frame(PONG, b"?"), frame(TEXT, b"x"), close()], echoes=[b"x"])


def fragments():
    parts = lambda *p: [frame(TEXT if n == 0 else 0, x, FIN if n == len(p) - 1 else 0) for n, x in enumerate(p)]
    yield Case("two", [*parts(b"one", b"two"), close()], echoes=[b"onetwo"])
    yield Case("a hundred", [*parts(*[b"%02d" % n for n in range(100)]), close()], echoes=[b"".join(b"%02d" % n for n in range(100))])
    yield Case("empty ones", [*parts(b"", b"", b""), close()], echoes=[b""])
    first, last = parts(b"one", b"two")
    yield Case("a ping between", [first, frame(PING, b"p"), last, close()], echoes=[b"onetwo"])
    yield Case("a message between", [first, frame(TEXT, b"x")], 1002)
    yield Case("a continuation of nothing", [frame(0, b"x")], 1002)
    yield Case("a close between", [first, close()], 1002)


def utf8():
    for name, text in (("two bytes", "κόσμε"), ("three", "€"), ("four", "𝄞"), ("the last", "\U0010ffff"), ("no character", "\ufffe")):
        yield messages(name, text.encode(), opcode=TEXT)
    whole = "κ€𝄞".encode()
    for at in range(1, len(whole)):
        sends = [frame(TEXT, whole[:at], 0), frame(0, whole[at:]), close()]
        yield Case(f"cut after {at} bytes", sends, echoes=[whole])
    for name, broken in (
        ("a lone continuation", b"\x80"),
        ("overlong", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
        ("cut short", b"\xce"),
        ("in the middle", b"ok\xffok"),
    ):
        yield Case(f"broken: {name}", [frame(TEXT, broken)], 1007)
        yield Case(f"as binary: {name}", [frame(BINARY, broken), close()], echoes=[broken])


def closing():
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        yield Case(f"code {code}", [close(code, b"why")], code)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
        yield Case(f"code {code} is none", [close(code)], 1002)
    yield Case("no code", [frame(CLOSE)], None)
    yield Case("half a code", [frame(CLOSE, b"\x03")], 1002)
    yield Case("a long reason", [close(1000, b"r" * 123)])
    yield Case("too long a reason", [close(1000, b"r" * 124)], 1002)
    yield Case("a reason that is no UTF-8", [close(1000, b"\xff")], 1007)
    yield Case("data after it", [close() + frame(TEXT, b"x")], echoes=[])
    yield Case("two", [close() + close(1001)])


def compressed():
    extra = {"Sec-WebSocket-Extensions": "permessage-deflate"}

    def deflated(*texts):
        packer = zlib.compressobj(wbits=-15)
        return [packer.compress(t) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4] for t in texts]

    for name, texts in (
        ("short", [b"hello"]),
        ("empty", [b""]),
        ("a megabyte of one letter", [b"a" * (1 << 20)]),
        ("noise", [hashlib.shake_128(b"noise").digest(100_000)]),
        ("one after the other", [b"the same again"] * 5),
    ):
        sends = [frame(BINARY, part, FIN | RSV1) for part in deflated(*texts)]
        yield Case(name, [*sends, close()], echoes=texts, extra=extra)
    (part,) = deflated(b"in two fragments")
    sends = [frame(TEXT, part[:5], RSV1), frame(0, part[5:])]
    yield Case("fragments", [*sends, close()], echoes=[b"in two fragments"], extra=extra)
    yield Case("not compressed all the same", [frame(TEXT, b"plain"), close()], echoes=[b"plain"], extra=extra)
    yield Case("a ping that says so", [frame(PING, b"x", FIN | RSV1)], 1002, extra=extra)
    yield Case("no compression in it", [frame(BINARY, b"\xff" * 20, FIN | RSV1)], 1002, extra=extra)


def handshakes():
    yield Case("a subprotocol", [close()], extra={"Sec-WebSocket-Protocol": "chat, other"})
    yield Case("a subprotocol nobody speaks", [close()], extra={"Sec-WebSocket-Protocol": "nothing"})
    yield Case("an extension nobody knows", [close()], extra={"Sec-WebSocket-Extensions": "x-unknown; a=1"})
    yield Case("an old version", [], extra={"Sec-WebSocket-Version": "8"}, status="400")
    yield Case("no key", [], extra={"Sec-WebSocket-Key": None}, status="400")
    yield Case("a key of another length", [], extra={"Sec-WebSocket-Key": "c2hvcnQ="}, status="400")
    yield Case("no version", [], extra={"Sec-WebSocket-Version": None}, status="400")


FAMILIES = (framing, control, fragments, utf8, closing, compressed, handshakes)


# ---------------------------------------------------------------- running


def play(port, case):
    """Everything the server says: the handshake, then its frames, then how it ended."""
    client = Client(port, case.extra)
    said = [client.handshake()]
    if said[0][0] == "101":
        sends, last = case.sends, b""
        if case.echoes:
            # A server that is told to close need not answer what came before.
            sends, last = sends[:-1], sends[-1]
        left = len(case.echoes or ())
        with concurrent.futures.ThreadPoolExecutor(1) as pump:
            pump.submit(send, client, sends)
            try:
                while True:
                    said.append(client.frame())
                    opcode = said[-1][0] & 0x0F
                    left -= opcode in (TEXT, BINARY)
                    if last and left == 0:
                        pump.submit(send, client, [last])
                        last = b""
                    if opcode == CLOSE:
                        pump.submit(client.socket.shutdown, socket.SHUT_WR)
            except Ended:
                said.append("end")
    client.socket.close()
    return said


def send(client, parts):
    try:
        for part in parts:
            client.socket.sendall(part)
    except OSError:
        pass  # The server has had enough, which is what it will say.


def wrong(case, said):
    """What is not as the case says, or none."""
    if said[0][0] != case.status:
        return f"handshake {said[0]}"
    if case.status != "101":
        return None
    frames = [entry for entry in said[1:] if entry != "end"]
    closes = [payload for first, payload in frames if first & 0x0F == CLOSE]
    code = struct.unpack("!H", closes[0][:2])[0] if closes and closes[0] else None
    if not closes or code != case.code:
        return f"closed with {code}, not {case.code}"
    if case.echoes is not None:
        unpacker, echoes = zlib.decompressobj(wbits=-15), []
        for first, payload in frames:
            if first & 0x0F not in (TEXT, BINARY, 0):
                continue
            if first & RSV1:
                payload = unpacker.decompress(payload + b"\x00\x00\xff\xff")
            echoes.append(payload)
        if b"".join(echoes) != b"".join(case.echoes):
            return "echoes differ from what was sent"
    return None


def compare(direct, proxied):
    cases = [(family.__name__, case) for family in FAMILIES for case in family()]
    differ = 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        both = [(f, c, pool.submit(play, direct, c), pool.submit(play, proxied, c)) for f, c in cases]
        for family, case, one, other in both:
            one, other = one.result(), other.result()
            why = wrong(case, one)
            if why:
                print(f"{family}: {case.name}: the server itself: {why}")
            elif one != other:
                why = f"{short(one)} direct, {short(other)} through the proxy"
                print(f"{family}: {case.name}: {why}")
            differ += bool(why)
    counts = {f.__name__: sum(1 for name, _ in cases if name == f.__name__) for f in FAMILIES}
    print(f"{len(cases) - differ} of {len(cases)} cases are the same:", *(f"{n} {c}" for n, c in counts.items()))
    return differ == 0


def short(said):
    return [e if isinstance(e, str) else (e[0], e[1][:20]) for e in said[:6]]


async def serve():
    from websockets.asyncio.server import serve as websocket_server

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    def choose(_, offered):
        return "chat" if "chat" in offered else None

    options = dict(max_size=MESSAGE_MAX, select_subprotocol=choose, ping_interval=None)
    async with websocket_server(echo, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


def main():
    match sys.argv[1:]:
        case ["serve"]:
            asyncio.run(serve())
        case ["compare", direct, proxied]:
            sys.exit(0 if compare(int(direct), int(proxied)) else 1)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
