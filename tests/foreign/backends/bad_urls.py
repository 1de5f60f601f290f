"""One client's bad URL does not take the pool away: what a request does to its own answer is nothing against the server."""

from common import Pools, fetch, node
from kit import Curl, equal, expect

# Each with how often the client asks. What is waited for is asked for in parallel.
FAST = "--rate 25/s"
SLOW = "--parallel --parallel-max 10"
BAD = {"malformed": FAST, "never": SLOW, "late": SLOW, "fields": FAST, "reset": FAST, "truncated": FAST}
REQUESTS = 35
PAGES = 40
ATTACKER = "127.0.0.2"
OTHERS = ("127.0.0.3", "127.0.0.4")


def ask(address, bad, clients):
    """The URL `bad` from some addresses, while others fetch pages; gives what came of both, by status or error."""
    options = BAD[bad].split()
    spoilers = [Curl(f"http://{address}/{bad}?[1-{REQUESTS}]", *options, "--interface", client) for client in clients]
    others = [Curl(f"http://{address}/page?[1-{PAGES}]", "--rate", "30/s", "--interface", client) for client in OTHERS]
    return spoilers, others


def judge(spoilers, others, pool):
    for client in spoilers:
        counts = client.counts()
        expect(sum(counts.values()) == REQUESTS and "200" not in counts, f"the bad URL of {pool}: {counts}")
    for client in others:
        equal(client.counts(), {"200": PAGES}, f"pages of {pool}")


def one_client(proxied, bad):
    """One client and every pool at a time: one endpoint, three, and three without checks."""
    running = {pool: ask(address, bad, [ATTACKER]) for pool, address in proxied.address.items()}
    for pool, (spoilers, others) in running.items():
        judge(spoilers, others, pool)
        equal(proxied.metric("endpoint_downs_total", pool), 0, f"times that endpoints of {pool} went out of use")
    return f"{PAGES * len(OTHERS) * len(running)} pages"


def many_clients(proxied, bad):
    """Even many clients cannot take away the only endpoint, whose checks pass."""
    judge(*ask(proxied.address["one"], bad, [f"127.0.0.{n}" for n in range(10, 14)]), "one")
    equal(proxied.metric("endpoint_downs_total", "one"), 0, "times that the endpoint went out of use")
    return f"{PAGES * len(OTHERS)} pages"


def cases(report):
    servers = [node() for _ in range(3)]
    all_three = ", ".join(f'"{server.address}"' for server in servers)
    check = "check: {http: {path: /well}, interval: 1s}"
    pools = {
        "one": f'{{endpoints: ["{servers[0].address}"], {check}}}',
        "three": f"{{endpoints: [{all_three}], {check}}}",
        "unchecked": f"{{endpoints: [{all_three}]}}",
    }
    for bad in BAD:
        # Each with endpoints that have done nothing bad yet.
        names = [f"one client's bad URL, {bad}", f"the bad URL of many clients and the only endpoint, {bad}"]
        if not any(report.wants(name) for name in names):
            continue
        with Pools(pools, timeouts="{response-head: 300ms}") as proxied:
            # Of an endpoint that has never served, each failure counts.
            for address in proxied.address.values():
                equal({fetch(address, "/page")[0] for _ in range(2 * len(servers))}, {200}, "pages")
            report.case(names[0], one_client, proxied, bad)
            if bad in ("reset", "never"):
                report.case(names[1], many_clients, proxied, bad)
    for server in servers:
        server.stop()
