"""What the parts of this suite share."""

import http.client
import pathlib
import time

from kit import Proxy, Server, free_address

HERE = pathlib.Path(__file__).resolve().parent


def node(*arguments, **options):
    """server.js, with what it is told."""
    return Server(["node", HERE / "server.js", *arguments], name="node", **options)


class Pools:
    """A proxy with a listener for each pool: `pools` has the YAML of each by name; `address` where it is served.
    `more` is further YAML."""

    def __init__(self, pools, timeouts="{}", more=""):
        self.address = {name: free_address() for name in pools}
        listeners = "".join(
            f'  - {{name: {name}, protocol: http, bind: "{address}", pool: {name}, timeouts: {timeouts}}}\n'
            for name, address in self.address.items()
        )
        entries = "".join(f"  {name}: {pool}\n" for name, pool in pools.items())
        self.proxy = Proxy(f"pools:\n{entries}listeners:\n{listeners}{more}\n")

    def metric(self, name, pool):
        """The sum of a metric over the endpoints of a pool."""
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in self.proxy.admin("/metrics").splitlines()
            if line.startswith(f"sluicegate_{name}{{") and f'pool="{pool}"' in line
        ]
        return round(sum(values))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proxy.stop()


def fetch(address, target, method="GET", timeout=30):
    """One request over a connection of its own: status, body and seconds."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    began = time.monotonic()
    try:
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read().decode()
        return response.status, body, time.monotonic() - began
    finally:
        connection.close()
