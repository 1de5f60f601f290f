"""The proxy under test, as its own process with a configuration of its own."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading

from .process import Program, scratch, until

_making = threading.Lock()
ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary():
    """SLUICEGATE_BIN, else the debug build of this tree."""
    path = pathlib.Path(os.environ.get("SLUICEGATE_BIN") or ROOT / "target/debug/sluicegate")
    if not path.exists():
        raise SystemExit(f"{path} is not built: run `cargo build --bin sluicegate`, or set SLUICEGATE_BIN")
    return path


def certificate():
    """A certificate for localhost and 127.0.0.1 and its key, made once a run: (certificate, key)."""
    folder = scratch() / "certificate"
    with _making:
        if not folder.exists():
            names = ["localhost", "127.0.0.1", "::1"]
            argv = [binary(), "cert", "self-signed", *names, "--out", folder]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return folder / "localhost.crt", folder / "localhost.key"


class Proxy(Program):
    """A running proxy. `yaml` needs no `admin` and no `telemetry`."""

    def __init__(self, yaml):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="proxy-", dir=scratch()))
        self.admin_socket = self.folder / "admin.sock"
        self.configure(yaml)
        super().__init__(
            [binary(), "run", "-c", self.folder / "sluicegate.yaml"],
            name="sluicegate",
            environment={"XDG_CACHE_HOME": str(binary().with_name("test-cache"))},
        )
        try:
            until(self._is_ready, "the proxy is ready")
        except TimeoutError as late:
            self.stop()
            raise SystemExit(f"{late}\n{yaml}\n{self.said()}") from None

    def configure(self, yaml):
        more = f"""
admin: {{bind: "unix:{self.admin_socket}"}}
telemetry: {{access-log: {{format: json}}}}
"""
        (self.folder / "sluicegate.yaml").write_text(yaml + more)

    def _is_ready(self):
        if not self.is_running():
            raise TimeoutError(f"sluicegate ended with {self.process.returncode}")
        try:
            return " 200 " in self.admin("/ready").split("\r\n")[0]
        except OSError:
            return False

    def admin(self, path, method="GET"):
        """One request to the admin interface: the answer as text, with its head."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(5)
            admin.connect(str(self.admin_socket))
            admin.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def reload(self):
        """Has it take what was given to `configure`."""
        answer = self.admin("/reload", "POST")
        if " 200 " not in answer.split("\r\n")[0]:
            raise RuntimeError(answer)

    def metrics(self, name):
        """The samples of one metric, each as its labels and its value."""
        samples = []
        for line in self.admin("/metrics").splitlines():
            found = re.fullmatch(r"sluicegate_(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                samples.append((dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")), float(found[3])))
        return samples

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        return sum(value for has, value in self.metrics(name) if labels.items() <= has.items())

    def records(self, after=0):
        """The access log so far, without its first `after` records."""
        return [json.loads(line) for line in self.lines[after:] if line.startswith("{")]

    def stop(self):
        # What is under way at the end of a suite is of no interest: the second signal cuts it.
        if self.is_running():
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGINT)
        super().stop()
