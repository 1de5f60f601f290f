"""A host that has vanished: what is sent on a connection that was kept is not acknowledged by anybody."""

import concurrent.futures
import os

from common import HERE, Pools, fetch, node
from kit import Failed, Server, equal, expect, until
from namespace import Namespace, is_impossible

# `tcp-user-timeout` and `connect-timeout` of the pools, `timeouts.response-head` of the listeners, in seconds.
USER_TIMEOUT = 1.0
CONNECT_TIMEOUT = 1.0
RESPONSE_HEAD = 8.0
# For the kernel, which looks when it sends again, and a busy machine.
SLACK = 1.5
# Endpoints that were ejected are out of use for 10 s.
BACK = 15.0


def parallel(*requests):
    """Runs requests at one time; gives their answers."""
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as threads:
        return [future.result() for future in [threads.submit(fetch, *request) for request in requests]]


def keeps_connections(proxied, pool):
    """Requests until every endpoint has a kept connection with each worker."""
    address = proxied.address[pool]
    for _ in range(4):
        statuses = {status for status, _, _ in parallel(*[(address, "/echo")] * 8)}
        equal(statuses, {200}, f"answers of {pool}")


def vanished(proxied, far):
    for pool in proxied.address:
        keeps_connections(proxied, pool)
    far.cut()
    try:
        # Of two requests one goes to the host that has vanished.
        requests = {pool: [(proxied.address[pool], "/echo")] * (1 if pool == "alone" else 2) for pool in proxied.address}
        answers = iter(parallel(*[request for each in requests.values() for request in each]))
        seen = {pool: [next(answers) for _ in each] for pool, each in requests.items()}
    finally:
        far.mend()
    said = "; ".join(f"{pool}: " + ", ".join(f"{status} after {seconds:.1f} s" for status, _, seconds in each) for pool, each in seen.items())
    # Sent again on a fresh connection, which cannot be made, and then to the other endpoint.
    bound = USER_TIMEOUT + CONNECT_TIMEOUT + SLACK
    longest = max(seconds for _, _, seconds in seen["set"])
    expect([status for status, _, _ in seen["set"]] == [200, 200], f"not all were answered: {said}")
    expect(USER_TIMEOUT / 2 < longest < bound, f"not noticed within {bound} s: {said}")
    # Where there is no other endpoint, each of three tries takes a kept connection, and then one that cannot be made.
    bound = 3 * (USER_TIMEOUT + CONNECT_TIMEOUT) + SLACK
    (status, _, seconds), = seen["alone"]
    expect(status in (502, 504) and seconds < bound, f"not given up within {bound} s: {said}")
    # Without it, nobody notices before the answer is late.
    late = [seconds for status, _, seconds in seen["off"] if status == 504]
    expect(len(late) == 1 and late[0] > RESPONSE_HEAD - 0.1, f"`off` makes no difference: {said}")
    return said


def back(address):
    """The host is there again, and every request answered."""
    until(lambda: fetch(address, "/echo")[0] == 200, "an answer of the host", deadline=BACK)
    equal({fetch(address, "/echo")[0] for _ in range(5)}, {200}, "answers of the host that is back")


def comes_and_goes():
    with Namespace() as far:
        argv = far.inside("node", HERE / "server.js", f"{far.address}:8080")
        with Server(argv, name="node-far") as distant, node() as near:
            both = f'endpoints: ["{distant.address}", "{near.address}"]'
            times = f"connect-timeout: {CONNECT_TIMEOUT:.0f}s"
            timed = f"{times}, tcp-user-timeout: {USER_TIMEOUT:.0f}s"
            pools = {
                "set": f"{{{both}, {timed}}}",
                "off": f"{{{both}, {times}, tcp-user-timeout: off}}",
                "alone": f'{{endpoints: ["{distant.address}"], {timed}}}',
            }
            with Pools(pools, timeouts=f"{{response-head: {RESPONSE_HEAD:.0f}s}}") as proxied:
                said = vanished(proxied, far)
                back(proxied.address["alone"])
                return said


def left_out(why):
    raise Failed(why)


def waiting(report):
    name = "a host that vanishes, with connections that were kept, and is back"
    why = is_impossible()
    if not why:
        yield name, comes_and_goes
    elif os.environ.get("CI"):
        yield name, left_out, why
    elif report.wants(name):
        report.note(f"LEFT OUT: {name}: {why}")
