"""A host of its own for a server: a network namespace at the other end of a link that can be cut."""

import os
import shutil
import subprocess

from kit import at_end


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Namespace:
    """`address` is that of the host. Needs to be root."""

    def __init__(self):
        number = os.getpid() % 16_384
        self.name = f"foreign-{os.getpid()}"
        self.near, self.far = f"fn{os.getpid()}", f"ff{os.getpid()}"
        # Four addresses of 198.18.0.0/16, which is for benchmarks.
        network = number * 4
        near, self.address = (f"198.18.{network >> 8}.{network & 255 | n}" for n in (1, 2))
        at_end(self.close)
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.name)
            ip("addr", "add", f"{near}/30", "dev", self.near)
            ip("link", "set", self.near, "up")
            ip("-n", self.name, "addr", "add", f"{self.address}/30", "dev", self.far)
            ip("-n", self.name, "link", "set", "lo", "up")
            ip("-n", self.name, "link", "set", self.far, "up")
        except OSError:
            self.close()
            raise

    def cut(self):
        """From now on nothing arrives, in either direction, and nobody is told."""
        ip("-n", self.name, "link", "set", self.far, "down")

    def mend(self):
        ip("-n", self.name, "link", "set", self.far, "up")

    def inside(self, *argv):
        """The command line that runs another one there."""
        return ["ip", "netns", "exec", self.name, *argv]

    def close(self):
        ip("netns", "del", self.name, check=False)
        ip("link", "del", self.near, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_impossible():
    """Why there can be no namespace here, or none."""
    if os.geteuid() != 0:
        return "needs to be root"
    if not shutil.which("ip"):
        return "needs ip of iproute2"
    try:
        Namespace().close()
    except OSError as error:
        return f"needs network namespaces: {error}"
    return None
