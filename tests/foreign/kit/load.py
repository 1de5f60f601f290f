"""Clients that send many requests: curl, which tells how each ended, and wrk."""

import collections
import json
import pathlib

from .process import Program

SCRIPT = pathlib.Path(__file__).with_name("wrk.lua")
FORMAT = "%{http_code} %{time_total} %{errormsg}\\n"


class Curl(Program):
    """curl, which fetches a URL that may have ranges such as `[1-100]`, over one connection where that stays open."""

    def __init__(self, url, *options):
        argv = ["curl", "--silent", "--max-time", "30", "--output", "/dev/null", "--write-out", FORMAT]
        super().__init__([*argv, *options, url])

    def transfers(self):
        """Waits for the end; gives a pair for each transfer: its status, or the error of one without; and its seconds."""
        self.wait(deadline=120)
        parts = [line.split(" ", 2) for line in self.lines]
        return [(error if error else status, float(seconds)) for status, seconds, error in parts]

    def counts(self):
        """Waits for the end; gives how many transfers ended with which status or error."""
        return dict(collections.Counter(outcome for outcome, _ in self.transfers()))


class Wrk(Program):
    """wrk for some seconds. `script` may add `request` and `response` to what `wrk.lua` here has."""

    def __init__(self, url, seconds, connections=8, threads=1, script=SCRIPT, environment=None):
        argv = ["wrk", "-t", threads, "-c", connections, "-d", f"{seconds}s", "--timeout", "30s", "-s", script, url]
        self.seconds = seconds
        super().__init__(argv, environment={"WRK_REPORT": str(SCRIPT), **(environment or {})})

    def result(self):
        """Waits for the end; gives `requests` that were answered, `errors` (statuses from 400 on) and `lost`."""
        self.wait(deadline=self.seconds + 60)
        lines = [line for line in self.lines if line.startswith("{")]
        if not lines:
            raise TimeoutError(f"wrk has no result:\n{self.said()}")
        return json.loads(lines[-1])
