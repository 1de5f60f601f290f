"""Other programs: servers that print where they listen, and programs that run to their end."""

import atexit
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

DEADLINE = 30.0

_making = threading.Lock()
_scratch = None
_taken = 0


def scratch():
    """The folder of this run; removed at its end unless FOREIGN_KEEP is set."""
    global _scratch
    with _making:
        if _scratch is None:
            _scratch = tempfile.TemporaryDirectory(prefix="sluicegate-foreign-")
            if os.environ.get("FOREIGN_KEEP"):
                print(f"kept: {_scratch.name}", flush=True)
                _scratch._finalizer.detach()
        return pathlib.Path(_scratch.name)


def free_address():
    """An address nobody listens on: a loopback address that belongs to this process, with ports that count up below
    the range that the kernel hands out for outgoing connections."""
    global _taken
    ip = f"127.{128 + (os.getpid() >> 14 & 63)}.{os.getpid() >> 6 & 255}.{(os.getpid() & 63) * 4 + 1}"
    while True:
        with _making:
            port = 20_000 + _taken
            _taken += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
            except OSError:
                continue
        return f"{ip}:{port}"


def addresses(count):
    """Loopback addresses, 31 at most, that belong to this process and that `free_address` does not give."""
    ip = f"127.{192 + (os.getpid() >> 11 & 63)}.{os.getpid() >> 3 & 255}"
    return [f"{ip}.{(os.getpid() & 7) * 32 + number}" for number in range(1, count + 1)]


def until(condition, what, deadline=DEADLINE):
    """Waits until `condition` gives something that is true, and returns it."""
    ends = time.monotonic() + deadline
    while True:
        if found := condition():
            return found
        if time.monotonic() > ends:
            raise TimeoutError(f"{what}: not within {deadline:.0f} s")
        time.sleep(0.02)


def accepts(address):
    """Whether somebody listens there."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def until_listening(address, program):
    """Waits until a program that does not say so accepts connections."""
    host, port = address.rsplit(":", 1)

    def accepts():
        if not program.is_running():
            raise SystemExit(program.said())
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, int(port))) == 0

    until(accepts, f"{program.name} listens")


_running = set()


_endings = []


def at_end(run):
    """Has `run` called when this process ends, also when it is told to."""
    _endings.append(run)


def _stop_all():
    for process in list(_running):
        process.kill()
    for run in _endings:
        run()


atexit.register(_stop_all)
# A run that is told to end takes its processes along.
signal.signal(signal.SIGTERM, lambda *_: os._exit(_stop_all() or 143))


class Program:
    """A process whose output is kept, line by line. `lines` are those of its standard output."""

    def __init__(self, argv, name=None, environment=None, stdin=subprocess.DEVNULL):
        self.name = name or os.path.basename(str(argv[0]))
        self.lines = []
        self.arrived = threading.Condition()
        self.errors = open(scratch() / f"{self.name}-{time.monotonic_ns()}.err", "w+b")
        self.process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **(environment or {})},
            text=True,
            errors="replace",
            bufsize=1,
        )
        _running.add(self.process)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.arrived:
                self.lines.append(line.rstrip("\n"))
                self.arrived.notify_all()
        with self.arrived:
            self.arrived.notify_all()

    def line(self, matches, deadline=DEADLINE, after=0):
        """The first line from number `after` on for which `matches` is true."""
        ends = time.monotonic() + deadline
        with self.arrived:
            while True:
                for line in self.lines[after:]:
                    if matches(line):
                        return line
                left = ends - time.monotonic()
                if left <= 0 or not self.reader.is_alive():
                    raise TimeoutError(f"{self.name} did not say what was waited for:\n{self.said()}")
                self.arrived.wait(min(left, 0.2))

    def said(self):
        """The end of its output, for messages."""
        return "\n".join(self.lines[-10:]) + "\n" + self.stderr()[-3000:]

    def stderr(self):
        return pathlib.Path(self.errors.name).read_text(errors="replace")

    def wait(self, deadline=DEADLINE):
        """Waits for the end; gives the exit status."""
        try:
            status = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} does not end:\n{self.said()}") from None
        self.reader.join(DEADLINE)
        _running.discard(self.process)
        return status

    def signal(self, number):
        self.process.send_signal(number)

    def is_running(self):
        return self.process.poll() is None

    def stop(self):
        """Ends it, the hard way if need be."""
        if self.is_running():
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        _running.discard(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Server(Program):
    """A program that prints `listening HOST:PORT` once it does; `address` is that."""

    def __init__(self, argv, **options):
        super().__init__(argv, **options)
        try:
            self.address = self.line(lambda line: line.startswith("listening ")).split(" ")[1]
        except TimeoutError:
            self.stop()
            raise


def gunicorn(folder, *arguments, bind="127.0.0.1:0"):
    """gunicorn with `app:application` of a folder, on a port that the kernel chooses unless `bind` names one."""
    argv = [sys.executable, "-m", "gunicorn", "--chdir", folder, "--bind", bind, "--graceful-timeout", "1"]
    server = Program([*argv, *arguments, "app:application"], name="gunicorn")

    def listening():
        lines = [line for line in server.stderr().splitlines() if "Listening at: " in line]
        return lines and lines[0].split("http://")[1].split(" ")[0]

    server.address = until(listening, "gunicorn listens")
    return server


def nginx(configuration, name="nginx"):
    """Debian's nginx in the foreground, with what is given inside of `http`."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nginx-", dir=scratch()))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr notice; events {{}}\n"
        + "http { access_log off;\n"
        + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        + configuration
        + "\n}\n"
    )
    server = Program(["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"], name=name)
    # It says so when its addresses are bound.
    until(lambda: not server.is_running() or "using the" in server.stderr(), "nginx starts")
    if not server.is_running():
        raise SystemExit(server.said())
    return server
