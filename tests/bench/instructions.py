#!/usr/bin/env python3
"""Counts the instructions that Sluicegate executes for a request, under callgrind. The figure is the same on a busy
machine and on an idle one, so that a change of one percent can be seen. README.md says what it cannot see."""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import run

REQUESTS = 3000
# How many requests one wake-up finds differs from run to run: the median counts.
ROUNDS = 5
CONNECTIONS = 1
# Filters have their instances, buffers have their sizes, connections to the origin are open.
WARM_UP = 800
START_SECONDS = 180

# name: (what is counted, port of the proxy, what h2load is told)
SCENARIOS = {
    "h1": ("HTTP/1.1", "http", ["--h1"]),
    "policy": ("HTTP/1.1, two filters", "policy", ["--h1"]),
    "four": ("HTTP/1.1, four filters", "four", ["--h1"]),
    "tls": ("HTTP/1.1 over TLS 1.3", "tls", ["--h1"]),
    "h2": ("HTTP/2 over TLS 1.3", "tls", ["-m1"]),
    "tcp": ("TCP relay", "tcp", ["--h1"]),
}
PACKAGES = {"valgrind": "valgrind", "nginx": "nginx", "h2load": "nghttp2-client", "openssl": "openssl"}


class Counted(run.Laboratory):
    """A laboratory whose proxy runs under callgrind."""

    def start_counted(self):
        ports = run.free_ports(["http", "policy", "four", "tls", "tcp"])
        conf = self.configuration("sluicegate.yaml", ports)
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", self.sluicegate, "run", "-c", conf]
        process = run.Process("sluicegate", command, run.PROXY_CORE, self.dir)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                for port in ports.values():
                    run.wait_for(port, process)
                return process, ports
            except run.Failed:
                if process.child.poll() is not None or time.monotonic() > end:
                    process.stop()
                    raise


def load(port, scheme, tool, requests):
    """Sends exactly so many requests."""
    command = ["h2load", "-t1", f"-c{CONNECTIONS}", f"-n{requests}", *tool]
    command += ["-H", f"user-agent: {run.AGENT}", f"{scheme}://127.0.0.1:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if f"{requests} succeeded" not in done.stdout:
        raise run.Failed(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def control(pid, *arguments):
    done = subprocess.run(["callgrind_control", *arguments, str(pid)], capture_output=True, text=True, timeout=60)
    return done.stdout


def executed(pid):
    """Instructions since the last `callgrind_control -z`, of all threads."""
    said = control(pid, "-e", "Ir")
    counts = re.findall(r"Th\s*\d+\s+([\d,]+)", said)
    if not counts:
        raise run.Failed(f"callgrind_control says nothing of instructions:\n{said}")
    return sum(int(count.replace(",", "")) for count in counts)


def count(lab, names):
    process, ports = lab.start_counted()
    counts = {}
    try:
        run.check("sluicegate", ports)
        for name in names:
            _, port, tool = SCENARIOS[name]
            scheme = "https" if port == "tls" else "http"
            load(ports[port], scheme, tool, WARM_UP)
            figures = []
            for _ in range(ROUNDS):
                control(process.child.pid, "-z")
                load(ports[port], scheme, tool, REQUESTS)
                figures.append(executed(process.child.pid) / REQUESTS)
            counts[name] = statistics.median(figures)
            print(f"{name:9}  {counts[name]:9.0f}", file=sys.stderr)
    finally:
        process.stop()
    return counts


def table(counts, before):
    lines = [f"{'':48}  {'instructions':>12}" + (f"  {'before':>9}  {'change':>7}" if before else "")]
    for name, figure in counts.items():
        line = f"{SCENARIOS[name][0]:48}  {figure:12.0f}"
        if name in before:
            line += f"  {before[name]:9.0f}  {figure / before[name] - 1:+7.2%}"
        lines.append(line)
    return "\n".join(lines)


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="may repeat; all when left out")
    parser.add_argument("--against", type=pathlib.Path, help="an earlier file of results: shows the change")
    parser.add_argument("--out", type=pathlib.Path, default=run.ROOT / "target/instructions.json")
    return parser.parse_args()


def main():
    chosen = options()
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing:
        sys.exit(f"instructions: needs these Debian packages: {' '.join(missing)}")
    program = pathlib.Path(os.environ.get("SLUICEGATE_BIN", run.ROOT / "target/release/sluicegate")).resolve()
    if not program.exists():
        sys.exit(f"instructions: {program} is not there: run `make build`, or set SLUICEGATE_BIN")
    before = json.loads(chosen.against.read_text()) if chosen.against else {}
    with tempfile.TemporaryDirectory(prefix="sluicegate-instructions-") as directory:
        lab = Counted(pathlib.Path(directory), str(program))
        origin = lab.start_origin()
        try:
            counts = count(lab, chosen.scenario or list(SCENARIOS))
        finally:
            origin.stop()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(counts, indent=1) + "\n")
    print(table(counts, before))


if __name__ == "__main__":
    try:
        main()
    except run.Failed as failed:
        sys.exit(f"instructions: {failed}")
