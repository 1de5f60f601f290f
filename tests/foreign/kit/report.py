"""A line for each case, and the closing line that sums them up."""

import concurrent.futures
import sys
import threading
import time
import traceback


class Failed(Exception):
    """A case did not come out as it should; the message says what was seen instead."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def equal(seen, wanted, what):
    if seen != wanted:
        raise Failed(f"{what}: {shown(seen)}, not {shown(wanted)}")


def shown(value):
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}… ({len(text)} characters)"


class Report:
    """Counts the cases of one suite. `only` picks those whose name contains one of the words on the command line."""

    def __init__(self, suite):
        self.suite = suite
        self.only = sys.argv[1:]
        self.passed = 0
        self.failed = 0
        self.telling = threading.Lock()

    def wants(self, name):
        return not self.only or any(word in name for word in self.only)

    def case(self, name, run, *arguments):
        """Runs one case: it passes unless `run` raises."""
        if not self.wants(name):
            return
        began = time.monotonic()
        try:
            run(*arguments)
        except Failed as failure:
            self.tell(name, str(failure), began)
        except Exception as error:  # A case that breaks is one that failed, and the others go on.
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.tell(name, f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})", began)
        else:
            self.tell(name, None, began)

    def together(self, cases, at_one_time=16):
        """Runs cases that mostly wait, each a tuple of what `case` takes, at the same time."""
        with concurrent.futures.ThreadPoolExecutor(at_one_time) as pool:
            list(pool.map(lambda case: self.case(*case), cases))

    def tell(self, name, failure, began=None):
        """Writes down how a case that ran elsewhere ended."""
        took = f"{time.monotonic() - began:.1f} s" if began else ""
        with self.telling:
            if failure is None:
                self.passed += 1
                print(f"{self.suite}: ok    {name}  {took}".rstrip(), flush=True)
            else:
                self.failed += 1
                print(f"{self.suite}: FAIL  {name}: {failure}  {took}".rstrip(), flush=True)

    def close(self):
        """Prints the closing line; gives the exit status. A run in which no case ran has failed."""
        print(f"{self.suite}: {self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.passed and not self.failed else 1
