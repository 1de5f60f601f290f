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
        """Runs one case: it passes unless `run` raises. What `run` returns, figures in words, is printed beside it."""
        if not self.wants(name):
            return
        self._tell(name, *self._outcome(run, arguments))

    def together(self, cases, at_one_time=None):
        """Runs cases that mostly wait at one time: of each its name, `run` and arguments. They are told in their order."""
        wanted = [case for case in cases if self.wants(case[0])]
        with concurrent.futures.ThreadPoolExecutor(at_one_time or len(wanted) or 1) as threads:
            running = [(name, threads.submit(self._outcome, run, arguments)) for name, run, *arguments in wanted]
            for name, outcome in running:
                self._tell(name, *outcome.result())

    @staticmethod
    def _outcome(run, arguments):
        """How a case ends: its failure or none, its figures, and its seconds."""
        began = time.monotonic()
        failure = figures = None
        try:
            figures = run(*arguments)
        except Failed as failed:
            failure = str(failed)
        except Exception as error:  # A case that breaks is one that failed, and the others go on.
            where = traceback.extract_tb(error.__traceback__)[-1]
            failure = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return failure, figures, time.monotonic() - began

    def note(self, text):
        """A line for information, which counts for nothing."""
        print(f"{self.suite}: note  {text}", flush=True)

    def tell(self, name, failure, began=None):
        """Writes down how a case that ran elsewhere ended."""
        self._tell(name, failure, None, began and time.monotonic() - began)

    def _tell(self, name, failure, figures, seconds):
        took = f"  {seconds:.1f} s" if seconds is not None else ""
        if failure is None:
            self.passed += 1
            seen = f" ({figures})" if figures else ""
            print(f"{self.suite}: ok    {name}{seen}{took}", flush=True)
        else:
            self.failed += 1
            print(f"{self.suite}: FAIL  {name}: {failure}{took}", flush=True)

    def close(self):
        """Prints the closing line; gives the exit status. A run in which no case ran has failed."""
        print(f"{self.suite}: {self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.passed and not self.failed else 1
