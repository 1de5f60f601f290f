"""What all suites here share: processes that are gone at the end, the proxy, certificates, and a line for each case."""

from .process import Program, Server, addresses, free_address, gunicorn, nginx, scratch, until, until_listening
from .proxy import Proxy, certificate
from .report import Failed, Report, equal, expect

__all__ = [
    "Failed",
    "Program",
    "Proxy",
    "Report",
    "Server",
    "addresses",
    "certificate",
    "equal",
    "expect",
    "free_address",
    "gunicorn",
    "nginx",
    "scratch",
    "until",
    "until_listening",
]
