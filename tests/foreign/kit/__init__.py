"""What all suites here share: processes that are gone at the end, the proxy, certificates, and a line for each case."""

from .process import Server, Program, free_address, scratch, until
from .proxy import Proxy, certificate
from .report import Report, Failed, expect, equal

__all__ = [
    "Failed",
    "Program",
    "Proxy",
    "Report",
    "Server",
    "certificate",
    "equal",
    "expect",
    "free_address",
    "scratch",
    "until",
]
