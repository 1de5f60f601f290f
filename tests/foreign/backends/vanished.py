"""A host that has vanished: what is sent on a connection that was kept is not acknowledged by anybody."""

import concurrent.futures
import os

from common import HERE, Pools, fetch, node
from kit import Server, equal, expect, until
from namespace import Namespace, is_possible

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
        seen = {pool: [(status, seconds) for status, _, seconds in (next(answers) for _ in each)] for pool, each in requests.items()}
    finally:
        far.mend()
    said = ", ".join(f"{pool}: {' '.join(f'{status} after {seconds:.1f} s' for status, seconds in each)}" for pool, each in seen.items())
    # Sent again on a fresh connection, which cannot be made, and then to the other endpoint.
    bound = USER_TIMEOUT + CONNECT_TIMEOUT + SLACK
    expect([status for status, _ in seen["set"]] == [200, 200], f"not all were answered: {said}")
    expect(max(seconds for _, seconds in seen["set"]) < bound, f"longer than {bound} s: {said}")
    expect(max(seconds for _, seconds in seen["set"]) > USER_TIMEOUT / 2, f"none went to the host that vanished: {said}")
    # Where there is no other endpoint, the further tries are connections that cannot be made.
    bound = USER_TIMEOUT + 5 * CONNECT_TIMEOUT + SLACK
    (status, seconds), = seen["alone"]
    expect(status in (502, 504) and seconds < bound, f"not given up within {bound} s: {said}")
    # Without it, nobody notices before the answer is late.
    late = [seconds for status, seconds in seen["off"] if status == 504]
    expect(len(late) == 1 and late[0] > RESPONSE_HEAD - 0.1, f"off makes no difference: {said}")
    return said


def back(proxied):
    """The host is there again: it is used again, and every request answered."""
    served = lambda: proxied.metric("endpoint_requests_total", "alone")

    def answered():
        return fetch(proxied.address["alone"], "/echo")[0] == 200

    until(answered, "an answer of the host", deadline=BACK)
    before = served()
    equal({fetch(proxied.address["alone"], "/echo")[0] for _ in range(5)}, {200}, "answers")
    equal(served() - before, 5, "tries")


def cases(report):
    names = ["a host that has vanished, and a kept connection", "a host that had vanished is back"]
    if not any(report.wants(name) for name in names):
        return
    if why := is_possible():
        if os.environ.get("CI"):
            report.tell(names[0], why)
        else:
            report.note(f"LEFT OUT: {names[0]}: {why}")
        return
    with Namespace() as far:
        argv = far.inside("node", HERE / "server.js", f"{far.address}:8080")
        with Server(argv, name="node-far") as distant, node() as near:
            both = f'endpoints: ["{distant.address}", "{near.address}"]'
            alone = f'endpoints: ["{distant.address}"]'
            times = f"connect-timeout: {CONNECT_TIMEOUT:.0f}s"
            pools = {
                "set": f"{{{both}, {times}, tcp-user-timeout: {USER_TIMEOUT:.0f}s}}",
                "off": f"{{{both}, {times}, tcp-user-timeout: off}}",
                "alone": f"{{{alone}, {times}, tcp-user-timeout: {USER_TIMEOUT:.0f}s}}",
            }
            with Pools(pools, timeouts=f"{{response-head: {RESPONSE_HEAD:.0f}s}}") as proxied:
                report.case(names[0], vanished, proxied, far)
                report.case(names[1], back, proxied)
