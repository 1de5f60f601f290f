"""What all suites here share: processes that are gone at the end, the proxy, certificates, and a line for each case."""

from .load import Curl, Wrk
from .process import (
    Program,
    Server,
    accepts,
    addresses,
    at_end,
    free_address,
    gunicorn,
    nginx,
    scratch,
    until,
    until_listening,
)
from .proxy import Proxy, certificate
from .report import Failed, Report, equal, expect

__all__ = [
    "Curl",
    "Failed",
    "Program",
    "Proxy",
    "Report",
    "Server",
    "Wrk",
    "accepts",
    "at_end",
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
