"""How large a response may be is the pool's business: what is larger is answered with 502, and the record says why."""

import subprocess

from common import Pools, node
from kit import equal, expect, until

TOO_LARGE = "response-headers-too-large"
# Fields, the bytes of each, and the pools that let them pass.
RESPONSES = [
    (10, 8, ("small", "usual", "large")),
    (100, 8, ("usual", "large")),
    (250, 8, ("large",)),
    (10, 1_000, ("usual", "large")),
    (10, 10_000, ("large",)),
]


def curl(address, target):
    """The status, how many lines `x-field-…` curl got, its error, and all that it got."""
    argv = ["curl", "--silent", "--show-error", "--include", "--max-time", "20", f"http://{address}{target}"]
    done = subprocess.run(argv, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    return lines[0].split(" ")[1] if lines else None, sum(line.startswith("x-field-") for line in lines), done.returncode, done.stdout


def records(proxied, targets):
    """The records of these requests by target, when all have been written."""

    def written():
        found = {record["target"]: record for record in proxied.proxy.records() if record["target"] in targets}
        return found if len(found) == len(targets) else None

    return until(written, "the records", deadline=5)


def heads(proxied, count, size, passing):
    targets = {pool: f"/fields?count={count}&size={size}&pool={pool}" for pool in proxied.address}
    answers = {pool: curl(proxied.address[pool], target) for pool, target in targets.items()}
    record = records(proxied, set(targets.values()))
    for pool, (status, fields, _, text) in answers.items():
        seen = record[targets[pool]]
        told = (seen["status"], seen.get("reason"))
        if pool in passing:
            equal((status, fields), ("200", count), f"status and fields with limits {pool}")
            equal(told, (200, None), f"the record with limits {pool}")
        else:
            equal((status, fields), ("502", 0), f"status and fields with limits {pool}")
            expect(f'details="{TOO_LARGE}"' in text, f"Proxy-Status does not say why: {text!r}")
            equal(told, (502, TOO_LARGE), f"the record with limits {pool}")


def trailers(proxied, passing):
    targets = {pool: f"/fields?count=100&trailers&pool={pool}" for pool in proxied.address}
    answers = {pool: curl(proxied.address[pool], target) for pool, target in targets.items()}
    record = records(proxied, set(targets.values()))
    for pool, (status, fields, error, _) in answers.items():
        reason = record[targets[pool]].get("reason")
        equal(status, "200", f"status with limits {pool}")
        if pool in passing:
            # curl prints trailers as it does fields.
            equal((fields, error, reason), (100, 0, None), f"trailers, curl's error and the reason with limits {pool}")
        else:
            expect(error != 0, f"with limits {pool} the answer is not cut off")
            equal(reason, TOO_LARGE, f"the reason with limits {pool}")


def cases(report):
    with node() as server:
        endpoint = f'endpoints: ["{server.address}"]'
        pools = {
            "small": f"{{{endpoint}, limits: {{header-fields: 40, header-bytes: 4KiB}}}}",
            "usual": f"{{{endpoint}}}",
            "large": f"{{{endpoint}, limits: {{header-fields: 300, header-bytes: 256KiB}}}}",
        }
        with Pools(pools) as proxied:
            # Each waits until its records are written.
            cases = [
                (f"limits of the pool, {count} fields of {size} bytes", heads, proxied, count, size, passing)
                for count, size, passing in RESPONSES
            ]
            report.together([*cases, ("limits of the pool, 100 trailers", trailers, proxied, ("usual", "large"))])
