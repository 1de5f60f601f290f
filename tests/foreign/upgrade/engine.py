"""Debian's dockerd with its own data, without a network, and an image that is made of programs of this machine."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.request

from kit import Program, free_address, scratch, until

PROGRAMS = ["sh", "cat", "sleep", "sha256sum"]
IMAGE = "tiny"


class Engine(Program):
    """dockerd, which needs root and control groups. `address` is where its API is."""

    def __init__(self):
        # Sockets are made below, whose paths may have 108 bytes.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="docker-", dir=scratch()))
        self.address = free_address()
        super().__init__(
            ["dockerd", "--host", f"tcp://{self.address}", "--tls=false"]
            + ["--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "--pidfile", self.folder / "pid"]
            + ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"]
            + ["--containerd-namespace", self.folder.name, "--containerd-plugins-namespace", f"{self.folder.name}-plugins"]
        )
        try:
            until(self._is_ready, "dockerd is ready", 60)
        except TimeoutError as late:
            self.stop()
            raise RuntimeError(f"{late}: {self.stderr().strip().splitlines()[-1:]}") from None

    def _is_ready(self):
        if not self.is_running():
            raise TimeoutError("dockerd has ended")
        try:
            return urllib.request.urlopen(f"http://{self.address}/_ping", timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        # It takes its containerd along, given time.
        if self.is_running():
            self.terminate_gently()
        super().stop()

    def terminate_gently(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass


def root_file_system():
    """A tar archive with a few programs and the libraries that they want."""
    root = scratch() / "root"
    for program in PROGRAMS:
        path = shutil.which(program)
        said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for file in [path, *re.findall(r"(/\S+) \(0x", said)]:
            # Where it was asked for, whatever links are on the way.
            target = root / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(file), target)
    archive = scratch() / "root.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    return archive
