"""Debian's name servers, each with a configuration, data and an address of its own, and dig, which says what they answer."""

import pathlib
import re
import subprocess
import tempfile
import threading

from kit import Program, free_address, scratch, until

SOA = "@ SOA ns hostmaster 1 3600 600 86400 1"
ZONE = "pool.test"


def zone(records):
    """A zone file of `pool.test`."""
    return "\n".join([f"$ORIGIN {ZONE}.", "$TTL 1", SOA, "@ NS ns", "ns A 127.0.0.1", *records]) + "\n"


def dig(address, name, kind="A", *options):
    """What dig is answered: (status, records of this kind as a sorted list, flags)."""
    host, port = address.rsplit(":", 1)
    argv = ["dig", "-p", port, f"@{host}", "+tries=1", "+time=2", *options, f"{name}.{ZONE}", kind]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=10).stdout
    status = re.search(r"status: (\w+)", said)
    flags = re.search(r"^;; flags: ([^;]*);", said, re.MULTILINE)
    records = re.findall(rf"^[^;\s]\S*\s+\d+\s+IN\s+{kind}\s+(\S+)$", said, re.MULTILINE)
    return status[1] if status else "silence", sorted(records), flags[1].split() if flags else []


class NameServer:
    """What the servers here have in common: a folder, an address, and a process that can be started again."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="names-", dir=scratch()))
        self.address = free_address()
        self.at = self.address.replace(":", "@")
        self.host, self.port = self.address.rsplit(":", 1)

    def start(self, argv, probe="ns"):
        self.process = Program(argv)
        try:
            until(lambda: dig(self.address, probe)[0] == "NOERROR" or not self.process.is_running(), f"{argv[0]} answers")
        except TimeoutError as late:
            raise RuntimeError(f"{late}\n{self.process.said()}") from None
        if not self.process.is_running():
            raise RuntimeError(self.process.said())

    def stop(self):
        self.process.stop()


class Knot(NameServer):
    """knotd with one zone, which `change` edits while it serves."""

    def __init__(self, records):
        super().__init__()
        # A zone has one transaction at a time.
        self.changing = threading.Lock()
        (self.folder / "zone").write_text(zone(records))
        (self.folder / "knot.conf").write_text(
            f"""
server:
  rundir: {self.folder}
  listen: {self.at}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: notice
database:
  storage: {self.folder}
zone:
  - domain: {ZONE}
    storage: {self.folder}
    file: zone
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
"""
        )
        self.run()

    def run(self):
        self.start(["knotd", "-c", self.folder / "knot.conf"])

    def control(self, *words):
        argv = ["knotc", "-c", str(self.folder / "knot.conf"), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")

    def change(self, *edits):
        """One transaction of lines for knotc: `unset NAME [TYPE]`, `set NAME TTL TYPE DATA`."""
        with self.changing:
            self.control("zone-begin", ZONE)
            for edit in edits:
                verb, *words = edit.split()
                self.control(f"zone-{verb}", ZONE, *words)
            self.control("zone-commit", ZONE)

    def expire(self):
        """From here on the zone is answered with SERVFAIL."""
        self.control("-f", "zone-purge", ZONE, "+expire")


class Pdns(NameServer):
    """PowerDNS with records that are written in Lua."""

    def __init__(self, records):
        super().__init__()
        (self.folder / "zone").write_text(zone(records))
        (self.folder / "named.conf").write_text(f'zone "{ZONE}" {{ type native; file "{self.folder}/zone"; }};\n')
        options = {
            "config-dir": self.folder,
            "socket-dir": self.folder,
            "launch": "bind",
            "bind-config": self.folder / "named.conf",
            "local-address": self.address,
            "enable-lua-records": "yes",
            "cache-ttl": 0,
            "query-cache-ttl": 0,
            "distributor-threads": 1,
            "security-poll-suffix": "",
            "daemon": "no",
            "guardian": "no",
            "write-pid": "no",
        }
        self.start(["pdns_server", *(f"--{key}={value}" for key, value in options.items())])


class Unbound(NameServer):
    """A resolver with a cache that forwards to another server."""

    def __init__(self, upstream):
        super().__init__()
        (self.folder / "unbound.conf").write_text(
            f"""
server:
  chroot: ""
  directory: "{self.folder}"
  username: ""
  pidfile: ""
  use-syslog: no
  interface: {self.at}
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  local-zone: "test." nodefault
  num-threads: 1
remote-control:
  control-enable: no
forward-zone:
  name: "{ZONE}"
  forward-addr: {upstream.at}
"""
        )
        self.start(["unbound", "-d", "-p", "-c", self.folder / "unbound.conf"])
