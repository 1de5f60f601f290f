#!/usr/bin/env python3
"""Measures Sluicegate beside nginx and HAProxy on this machine. README.md says how to read what it prints."""

import argparse
import contextlib
import http.client
import json
import math
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROXY_CORE, LOAD_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
BODY = "x" * 99 + "\n"
MIB = 1 << 20
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
STREAM_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")

# Programs and the Debian packages that have them.
PACKAGES = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}

# name: (what is measured, port of the proxy, path, load). The order is that of the table.
SCENARIOS = {
    "h1": ("HTTP/1.1, 32 connections", "http", "/", ["wrk", "-t1", "-c32"]),
    "policy": ("HTTP/1.1, User-Agent blocked, two fields appended", "policy", "/", ["wrk", "-t1", "-c32"]),
    "four": ("the same, a route by path, and the client kept on its endpoint", "four", "/", ["wrk", "-t1", "-c32"]),
    "tls": ("TLS 1.3, 32 connections", "tls", "/", ["wrk", "-t1", "-c32"]),
    "handshake": ("TLS 1.3, a full handshake for each request", "tls", "/", ["wrk", "-t1", "-c8", "-HConnection: close"]),
    "h2": ("HTTP/2 over TLS, 8 connections of 16 streams", "tls", "/", ["h2load", "-t1", "-c8", "-m16"]),
    "tcp": ("TCP relay, 32 connections", "tcp", "/", ["wrk", "-t1", "-c32"]),
    "tcp-1m": ("TCP relay, 1 MiB bodies", "tcp", "/1m", ["wrk", "-t1", "-c8"]),
    "h1-1m": ("HTTP/1.1, 1 MiB bodies", "http", "/1m", ["wrk", "-t1", "-c8"]),
    "idle": ("idle HTTP/1.1 connections", "http", "/", ["idle"]),
    "idle-tls": ("idle TLS connections", "tls", "/", ["idle"]),
}


class Failed(Exception):
    """A proxy did not start, or does not answer as it should."""


# ---------------------------------------------------------------- processes


class Process:
    """A program with its children, pinned to one core."""

    def __init__(self, name, command, core, directory):
        self.name = name
        self.log = open(directory / f"{name}.out", "wb")
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=directory,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )

    def tree(self):
        """The pids of the process and all its descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry)] = int(stat_fields(entry)[1])
        pids = {self.child.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in pids} - pids
            if not more:
                return pids
            pids |= more

    def cpu_seconds(self):
        """User and system time of the tree so far."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                fields = stat_fields(pid)
                total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_bytes(self):
        """Anonymous memory of the tree: what it allocated, without the program itself, which others may share."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                total += sum(int(kib) for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.M)) * 1024
        return total

    def stop(self):
        for kill in (self.child.terminate, self.child.kill):
            if self.child.poll() is None:
                kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(5)
        # Children that outlived their parent: they share its session, which is the one made for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.log.close()


def stat_fields(pid):
    """/proc/PID/stat from the state on; the name before it may hold anything."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_ports(names):
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    ports = {name: s.getsockname()[1] for name, s in sockets.items()}
    for s in sockets.values():
        s.close()
    return ports


def wait_for(port, process):
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if process.child.poll() is not None:
            break
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    process.log.flush()
    said = pathlib.Path(process.log.name).read_text(errors="replace")[-2000:]
    raise Failed(f"{process.name} does not listen on port {port}:\n{said}")


# ---------------------------------------------------------------- the laboratory


class Laboratory:
    """A directory with the origin, the certificate and the configuration of every proxy."""

    def __init__(self, directory, sluicegate):
        self.dir = directory
        self.sluicegate = sluicegate
        (directory / "tmp").mkdir()
        (directory / "1m").write_bytes(os.urandom(MIB))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=directory, check=True, capture_output=True,
        )
        (directory / "both.pem").write_bytes((directory / "cert.pem").read_bytes() + (directory / "key.pem").read_bytes())
        self.values = {
            "dir": str(directory),
            "body": BODY.replace("\n", "\\n"),
            "user": "user root;" if os.geteuid() == 0 else "",
            "stream_module": f"load_module {STREAM_MODULE};" if STREAM_MODULE.exists() else "",
            **free_ports(["origin"]),
        }

    def configuration(self, file, ports):
        text = (HERE / "conf" / file).read_text()
        for name, value in {**self.values, **ports}.items():
            text = text.replace("{{" + name + "}}", str(value))
        path = self.dir / file
        path.write_text(text)
        return str(path)

    def start_origin(self):
        conf = self.configuration("origin.conf", {})
        origin = Process("origin", ["nginx", "-p", str(self.dir), "-c", conf], LOAD_CORE, self.dir)
        wait_for(self.values["origin"], origin)
        return origin

    def start(self, peer):
        ports = free_ports(["http", "policy", "four", "tls", "tcp"])
        command = {
            "sluicegate": lambda: [self.sluicegate, "run", "-c", self.configuration("sluicegate.yaml", ports)],
            "nginx": lambda: ["nginx", "-p", str(self.dir), "-c", self.configuration("nginx.conf", ports)],
            "haproxy": lambda: ["haproxy", "-db", "-f", self.configuration("haproxy.cfg", ports)],
        }[peer]()
        process = Process(peer, command, PROXY_CORE, self.dir)
        try:
            for port in ports.values():
                wait_for(port, process)
        except Failed:
            process.stop()
            raise
        return process, ports


# ---------------------------------------------------------------- what must be right before it is fast


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fetch(port, path, tls=False, agent=AGENT):
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=unverified())
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"User-Agent": agent})
        response = connection.getresponse()
        return response.status, response.read()


def check(peer, ports):
    """Every listener answers with the right bytes, and the policy does what it is for."""
    for name in ("http", "policy", "four", "tls", "tcp"):
        answer = fetch(ports[name], "/", tls=name == "tls")
        if answer != (200, BODY.encode()):
            raise Failed(f"{peer}, {name}: answers {answer}")
    for name in ("http", "tcp"):
        status, body = fetch(ports[name], "/1m")
        if (status, len(body)) != (200, MIB):
            raise Failed(f"{peer}, {name}: a 1 MiB body comes as {status}, {len(body)} bytes")
    for name in ("policy", "four"):
        refused = fetch(ports[name], "/", agent="badcurl/1.0")[0]
        if refused != 403:
            raise Failed(f"{peer}, {name}: badcurl is answered {refused}, not 403")
        appended = fetch(ports[name], "/echo")[1].decode()
        if appended != f"127.0.0.1|127.0.0.1:{ports[name]}":
            raise Failed(f"{peer}, {name}: the backend was told {appended!r}")
    gone = fetch(ports["four"], "/gone/x")[0]
    if gone not in (502, 503):
        raise Failed(f"{peer}, four: /gone is answered {gone} by a pool that nobody serves")


# ---------------------------------------------------------------- load


def run_load(tool, url, seconds, directory):
    """Requests, errors, seconds and latencies (µs) of one run of wrk or h2load on the load core."""
    log = directory / "h2load.log"
    log.unlink(missing_ok=True)
    if tool[0] == "wrk":
        command = [*tool, f"-d{seconds}s", "--latency", "-H", f"User-Agent: {AGENT}", url]
    else:
        command = [*tool, "-D", str(seconds), f"--log-file={log}", "-H", f"user-agent: {AGENT}", url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return read_wrk(done.stdout) if tool[0] == "wrk" else read_h2load(done.stdout, log)


def read_wrk(text):
    count, took = re.search(r"(\d+) requests in ([\d.]+\w+),", text).groups()
    errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))
    errors += sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    at = {p: micros(value) for p, value in re.findall(r"^\s+(50|99)%\s+(\S+)$", text, re.M)}
    return {"requests": int(count), "errors": errors, "seconds": micros(took) / 1e6, "p50_us": at["50"], "p99_us": at["99"]}


def micros(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]


def read_h2load(text, log):
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    done, succeeded, failed, errored = map(int, found.groups())
    took = float(re.search(r"finished in ([\d.]+)s", text)[1])
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    at = lambda share: times[min(len(times) - 1, math.floor(len(times) * share))]
    errors = done - succeeded + failed + errored
    return {"requests": succeeded, "errors": errors, "seconds": took, "p50_us": at(0.50), "p99_us": at(0.99)}


def measure_load(lab, process, tool, url, seconds):
    run_load(tool, url, 1, lab.dir)
    before = process.cpu_seconds()
    result = run_load(tool, url, seconds, lab.dir)
    cpu = process.cpu_seconds() - before
    if result["requests"] == 0:
        raise Failed(f"{process.name}: no request succeeded")
    return {
        **result,
        "cpu_us": cpu * 1e6 / result["requests"],
        "rps": result["requests"] / result["seconds"],
        "memory_bytes": process.memory_bytes(),
    }


def measure_idle(process, port, tls, count):
    """Memory per connection that did one request and waits for the next."""
    context = unverified() if tls else None
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {AGENT}\r\n\r\n".encode()

    def opened():
        connection = socket.create_connection(("127.0.0.1", port), 10)
        connection.settimeout(10)
        if context:
            connection = context.wrap_socket(connection)
        connection.sendall(request)
        answer = b""
        while BODY.encode() not in answer:
            piece = connection.recv(4096)
            if not piece:
                raise Failed(f"{process.name}: closed an idle connection")
            answer += piece
        return connection

    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(opened())
        time.sleep(0.5)
        before = process.memory_bytes()
        for _ in range(count):
            stack.enter_context(opened())
        time.sleep(1)
        after = process.memory_bytes()
    return {"connections": count, "memory_bytes": after, "bytes_per_connection": (after - before) / count}


def measure(lab, peer, scenario, options):
    _, port_name, path, tool = SCENARIOS[scenario]
    process, ports = lab.start(peer)
    try:
        check(peer, ports)
        if tool == ["idle"]:
            return measure_idle(process, ports[port_name], port_name == "tls", options.connections)
        scheme = "https" if port_name == "tls" else "http"
        return measure_load(lab, process, tool, f"{scheme}://127.0.0.1:{ports[port_name]}{path}", options.seconds)
    finally:
        process.stop()


# ---------------------------------------------------------------- results


def table(results, peers):
    """Markdown: the median over the rounds, and in brackets the least."""

    def values(scenario, peer, key):
        return [r[key] for r in results if (r["scenario"], r["peer"]) == (scenario, peer) and key in r]

    def cell(scenario, peer, key, digits):
        found = values(scenario, peer, key)
        if not found:
            return "–"
        mark = " !" if any(values(scenario, peer, "errors")) else ""
        least = f" ({min(found):.{digits}f})" if len(found) > 1 else ""
        return f"{statistics.median(found):.{digits}f}{least}{mark}"

    def latency(scenario, peer):
        p50, p99, rate = (values(scenario, peer, key) for key in ("p50_us", "p99_us", "rps"))
        if not rate:
            return "–"
        return f"{statistics.median(rate):.0f}/s, {statistics.median(p50):.0f}, {statistics.median(p99):.0f}"

    seen = [s for s in SCENARIOS if any(r["scenario"] == s for r in results)]
    loads = [s for s in seen if not s.startswith("idle")]
    head = lambda title: [f"| {title} | " + " | ".join(peers) + " |", "| --- |" + " ---: |" * len(peers)]
    lines = []
    if loads:
        lines += head("processor time per request, µs")
        lines += [f"| {SCENARIOS[s][0]} | " + " | ".join(cell(s, p, "cpu_us", 1) for p in peers) + " |" for s in loads]
        lines += ["", *head("requests a second, p50 and p99 in µs")]
        lines += [f"| {SCENARIOS[s][0]} | " + " | ".join(latency(s, p) for p in peers) + " |" for s in loads]
    idles = [s for s in seen if s.startswith("idle")]
    if idles:
        lines += ["", *head("memory per connection, bytes")]
        lines += [f"| {SCENARIOS[s][0]} | " + " | ".join(cell(s, p, "bytes_per_connection", 0) for p in peers) + " |" for s in idles]
    return "\n".join(lines)


def versions(sluicegate):
    """What was measured, as the programs say it themselves."""
    said = {}
    for name, command in {"sluicegate": [sluicegate, "--version"], "nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"]}.items():
        done = subprocess.run(command, capture_output=True, text=True)
        said[name] = (done.stdout + done.stderr).splitlines()[0].strip()
    return said


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of one measurement")
    parser.add_argument("--connections", type=int, default=5000, help="of the idle scenarios")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="may repeat; all when left out")
    parser.add_argument("--peer", action="append", choices=["sluicegate", "nginx", "haproxy"], help="may repeat")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/bench.jsonl", help="a JSON object a line")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds, chosen.connections = 1, 1, 500
    chosen.scenario = chosen.scenario or list(SCENARIOS)
    chosen.peer = chosen.peer or ["sluicegate", "nginx", "haproxy"]
    return chosen


def prepare():
    """The path of the program to measure; or says what is missing and ends."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if "nginx" not in missing and not STREAM_MODULE.exists():
        built_in = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
        if not re.search(r"--with-stream(\s|$)", built_in):
            missing.append("libnginx-mod-stream")
    if missing:
        sys.exit(f"bench: needs these Debian packages: {' '.join(missing)}")
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit(f"bench: needs processors {PROXY_CORE} and {LOAD_CORE}: one for the proxy, one for origin and load")
    sluicegate = pathlib.Path(os.environ.get("SLUICEGATE_BIN", ROOT / "target/release/sluicegate")).resolve()
    if not sluicegate.exists():
        sys.exit(f"bench: {sluicegate} is not there: run `make build`, or set SLUICEGATE_BIN")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return str(sluicegate)


def main():
    chosen = options()
    sluicegate = prepare()
    os.sched_setaffinity(0, {LOAD_CORE})
    # Ended from outside, it still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results, failures = [], 0
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as directory, open(chosen.out, "w") as out:
        lab = Laboratory(pathlib.Path(directory), sluicegate)
        said = versions(sluicegate)
        out.write(json.dumps({"versions": said, "rounds": chosen.rounds, "seconds": chosen.seconds}) + "\n")
        origin = lab.start_origin()
        try:
            for turn in range(chosen.rounds):
                for scenario in chosen.scenario:
                    # Another proxy goes first each round, so that none is always measured on the cooler machine.
                    first = turn % len(chosen.peer)
                    for peer in chosen.peer[first:] + chosen.peer[:first]:
                        try:
                            result = measure(lab, peer, scenario, chosen)
                        except (Failed, OSError, subprocess.TimeoutExpired) as error:
                            failures += 1
                            print(f"bench: {scenario}, {peer}: {error}", file=sys.stderr)
                            continue
                        result = {"round": turn, "scenario": scenario, "peer": peer, **result}
                        results.append(result)
                        out.write(json.dumps(result) + "\n")
                        out.flush()
                        shown = result.get("cpu_us", result.get("bytes_per_connection"))
                        print(f"round {turn + 1} of {chosen.rounds}  {scenario:9}  {peer:10}  {shown:9.1f}", file=sys.stderr)
        finally:
            origin.stop()
    print("\n".join(f"{name}: {text}" for name, text in said.items() if name in chosen.peer), end="\n\n")
    print(table(results, chosen.peer))
    print(f"\n{chosen.out}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
