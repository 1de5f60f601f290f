"""An answer that belongs to nobody: servers that send a body after HEAD, 204 and 304, on connections that are kept."""

import concurrent.futures
import http.client
import random
import socket
import ssl
import sys

from common import HERE, Pools, fetch, node
from kit import Failed, Server, Wrk, certificate, equal, expect

CLIENTS = 4
REQUESTS = 120
STRAY = b"stray"
PYTHON = ("cheroot", "waitress", "http.server")
HEAD, NO_CONTENT, NOT_MODIFIED = "HEAD /echo?", "GET /echo?status=204", "GET /echo?status=304"
# wrk waits for a body that an answer of 204 or 304 announces.
WITH_WRK = ("http.server", "node", "node over TLS 1.3")
ALL = (HEAD, NO_CONTENT, NOT_MODIFIED)
# What is added to the queries of bodyless requests, and the requests behind which the server is known to send something.
STRAYS = {
    "cheroot": {"": ALL},
    # It closes its connection after 204 and 304.
    "waitress": {"": (HEAD,)},
    "http.server": {"": ALL},
    # At once, and when the next request may be on its way.
    "node": {"&stray=0": ALL, "&stray=10": ALL, "&stray=60": ALL},
    "node over TLS 1.2": {"&stray=10": ALL},
    "node over TLS 1.3": {"&stray=0": ALL, "&stray=10": ALL},
}


def mixed(address, stray, seed):
    """One client with a kept connection that asks for all kinds of things; gives how many GETs had a body."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    choose = random.Random(seed)
    whole = 0
    for n in range(REQUESTS):
        method, status = choose.choice([("GET", 200), ("GET", 200), ("GET", 200), ("HEAD", 200), ("GET", 204), ("GET", 304)])
        bodyless = method == "HEAD" or status != 200
        target = f"/echo?of={seed}-{n}" + (f"&status={status}" if status != 200 else "") + (stray if bodyless else "")
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read().decode()
        equal((response.status, body), (status, "" if bodyless else target), f"answer to {method} {target}")
        whole += not bodyless
    connection.close()
    return whole


def sends_stray(address, request, tls=None):
    """Asks the server itself: what makes the case is that it sends more than the head."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        connection = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        connection.sendall(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while STRAY not in received:
            piece = connection.recv(65536)
            if not piece:
                raise Failed(f"the server sends nothing behind {request}: {received!r}")
            received += piece


def ssl_context(cert):
    return ssl.create_default_context(cafile=cert)


def belongs_to_nobody(direct, address, stray, probes, tls):
    for request in probes:
        sends_stray(direct, request + stray, tls)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        whole = sum(threads.map(lambda seed: mixed(address, stray, seed), range(CLIENTS)))
    return f"{whole} bodies among {CLIENTS * REQUESTS} answers"


def with_wrk(address, stray):
    """The same with wrk, but for HEAD, whose answers it cannot read."""
    # Each thread has one connection, and knows what it asked.
    script = HERE / "mix.lua"
    result = Wrk(f"http://{address}/", 2, connections=4, threads=4, script=script, environment={"STRAY": stray}).result()
    equal((result["wrong"], result["errors"], result["lost"]), (0, 0, 0), "wrong, failed and lost answers")
    expect(result["requests"] > 100, f"only {result['requests']} answers")
    return f"{result['requests']} answers"


def reuse(address):
    """GETs of a server that does nothing wrong: at least 99 of 100 go over a connection that is there already."""

    def connections():
        return int(fetch(address, "/connections")[1])

    before = connections()
    result = Wrk(f"http://{address}/echo", 2, connections=4).result()
    more = connections() - before
    equal((result["errors"], result["lost"]), (0, 0), "failed and lost answers")
    expect(result["requests"] > 800, f"only {result['requests']} answers")
    share = 1 - more / result["requests"]
    expect(share >= 0.99, f"{more} connections for {result['requests']} requests")
    return f"{more} connections for {result['requests']} requests, {share:.2%} reused"


def cases(report):
    cert, key = certificate()
    servers = {name: Server([sys.executable, HERE / "wsgi.py", name], name=name) for name in STRAYS if name in PYTHON}
    servers["node"] = node()
    servers["node over TLS 1.2"] = node("127.0.0.1:0", cert, key, "TLSv1.2")
    servers["node over TLS 1.3"] = node("127.0.0.1:0", cert, key, "TLSv1.3")
    pool_of = {name: name.replace(" ", "-").replace(".", "-") for name in servers}
    tls = f', tls: {{ca: "{cert}", server-name: localhost}}'
    pools = {pool_of[name]: f'{{endpoints: ["{at.address}"]{tls if "TLS" in name else ""}}}' for name, at in servers.items()}
    with Pools(pools) as proxied:
        address = {name: proxied.address[pool] for name, pool in pool_of.items()}
        # First, because the proxy remembers what an endpoint has done.
        for name in ("node", "node over TLS 1.2", "node over TLS 1.3"):
            report.case(f"connections are reused, {name}", reuse, address[name])
        for name, strays in STRAYS.items():
            secure = ssl_context(cert) if "TLS" in name else None
            for stray, probes in strays.items():
                case = f"an answer that belongs to nobody, {name}{' ' + stray[1:] if stray else ''}"
                report.case(case, belongs_to_nobody, servers[name].address, address[name], stray, probes, secure)
            if name in WITH_WRK:
                report.case(f"an answer that belongs to nobody, {name} and wrk", with_wrk, address[name], stray)
    for server in servers.values():
        server.stop()
