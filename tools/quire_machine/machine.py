"""A running machine and its serial port.

The emulator's COM1 is a pseudo-terminal of ours. A thread reads it all the time (an emulator does
not wait for a slow reader: what does not fit is lost), keeps the bytes for whoever shows them, and
renders them into lines for whoever waits for one.

The emulator runs in a session of its own, so that Ctrl-C at a terminal does not reach it, and is
killed by the kernel when this process dies, however it dies.
"""

import ctypes
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import tty

from quire_machine.screen import Screen

PROMPT = "quire> "
POWER_OFF = "quire: power off"
# A prompt counts once nothing has followed it for so long: a line being redrawn passes by it.
SETTLE_SECONDS = 0.05
TAIL_LINES = 30
LAST_BYTES_SECONDS = 0.02
WAIT_SECONDS = 90  # a boot takes about two on an idle machine, and many times that on a busy one

# The console scrolls a line longer than its row sideways, and so shows the end of it.
ROW_AT_LEAST = 40

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def shows_typed(line, text):
    """True when `line` is the prompt with `text` typed behind it."""
    if not line.startswith(PROMPT):
        return False
    shown = line[len(PROMPT) :].rstrip()
    text = text.rstrip()
    return shown == text or (len(shown) >= ROW_AT_LEAST and text.endswith(shown))


class MachineError(Exception):
    """What was waited for did not come; the text ends with the last lines of output."""


class Machine:
    def __init__(self, engine, iso):
        self.engine = engine
        self.status = None  # of the emulator, once it has ended
        self.screen = Screen()
        self.changed = threading.Condition()
        self._raw = bytearray()  # output that take_output() has not handed on yet
        self._last_output = time.monotonic()
        self._at = 0  # lines before this one have been looked at by expect()
        self._folder = tempfile.mkdtemp(prefix="quire-")
        self._news, self._news_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._master, self._slave = pty.openpty()
        try:
            self._start(iso)
        except BaseException:
            self._close()
            raise
        self._reader = threading.Thread(target=self._read, name="serial", daemon=True)
        self._reader.start()

    def _start(self, iso):
        if not os.path.exists(iso):
            raise MachineError(f"there is no image {iso}")
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        command = self.engine.command(iso, os.ttyname(self._slave), self._folder)
        parent = os.getpid()

        def die_with_parent():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with open(self._emulator_log(), "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.engine.environment()},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _emulator_log(self):
        return os.path.join(self._folder, "emulator.log")

    def _read(self):
        ended = os.pidfd_open(self.process.pid)
        while self._read_once(ended):
            pass
        os.close(ended)
        with self.changed:
            self.status = self.process.wait()
            self.changed.notify_all()
        self._wake()

    def _read_once(self, ended):
        ready, _, _ = select.select([self._master, ended], [], [])
        if self._master not in ready:
            # The last bytes may still be on their way through the kernel.
            ready, _, _ = select.select([self._master], [], [], LAST_BYTES_SECONDS)
        if not ready:
            return False
        self._take(os.read(self._master, 65536))
        return True

    def _take(self, data):
        with self.changed:
            self._raw += data
            self.screen.feed(data)
            self._last_output = time.monotonic()
            self.changed.notify_all()
        self._wake()

    def _wake(self):
        try:
            os.write(self._news_write, b"!")
        except BlockingIOError:
            pass  # as many wake-ups as anybody needs are waiting already

    # For a session that shows everything: select() on the machine, then take_output().

    def fileno(self):
        return self._news

    def take_output(self):
        """The bytes that arrived since the last call."""
        try:
            os.read(self._news, 4096)
        except BlockingIOError:
            pass
        with self.changed:
            taken, self._raw = bytes(self._raw), bytearray()
        return taken

    def offer(self, data):
        """Types as many of these bytes as the serial line takes now; returns how many."""
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    def send(self, data, timeout=30):
        """Types bytes or text on the serial line, at the pace at which the machine takes them."""
        data = data.encode() if isinstance(data, str) else data
        deadline = time.monotonic() + timeout
        while data and self.status is None:
            taken = self.offer(data)
            data = data[taken:]
            if not taken:
                if time.monotonic() > deadline:
                    raise MachineError(f"the machine reads no input\n{self.tail()}")
                time.sleep(0.01)

    # For programs that know what should come.

    @property
    def lines(self):
        with self.changed:
            return list(self.screen.lines)

    def expect(self, pattern, timeout=WAIT_SECONDS):
        """Waits for a finished line in which `pattern` is found, after the last one that expect()
        found or the last command typed. Returns the match."""
        compiled = re.compile(pattern)

        def look():
            for index in range(self._at, len(self.screen.lines)):
                found = compiled.search(self.screen.lines[index])
                if found:
                    self._at = index + 1
                    return found
            return None

        return self._wait(look, timeout, f"a line with {pattern!r}")

    def wait_for(self, look, what, timeout=WAIT_SECONDS):
        """Waits until look() is true; `what` says what that stands for."""
        return self._wait(look, timeout, what)

    def at_prompt(self):
        """True when the console shows its bare prompt and is silent."""
        with self.changed:
            quiet = time.monotonic() - self._last_output
            return self.screen.current == PROMPT and quiet >= SETTLE_SECONDS

    def shows_typed(self, text):
        """True when the console shows `text` typed behind its prompt."""
        with self.changed:
            return shows_typed(self.screen.current, text)

    def wait_prompt(self, timeout=WAIT_SECONDS):
        """Waits until the console shows its bare prompt and is silent."""
        self._wait(self.at_prompt, timeout, "the prompt")

    def command(self, text, timeout=WAIT_SECONDS):
        """Types a command at the prompt and returns the lines it printed, up to the next prompt or
        the end of the machine."""
        self.wait_prompt(timeout)
        self.send(text)
        self._wait(lambda: self.shows_typed(text), timeout, f"the echo of {text!r}")
        with self.changed:
            start = len(self.screen.lines)
        self.send("\r")
        self._wait(lambda: len(self.screen.lines) > start, timeout, f"an answer to {text!r}")
        try:
            self.wait_prompt(timeout)
        except MachineError:
            if self.status is None:
                raise
        with self.changed:
            printed = self.screen.lines[start:]
            self._at = start
        # A guest's output may have pushed the typed line down; what follows it is the answer.
        for index, line in enumerate(printed):
            if shows_typed(line, text):
                return printed[:index] + printed[index + 1 :]
        return printed

    def wait_end(self, timeout=WAIT_SECONDS):
        """Waits for the machine to end; returns the emulator's status."""
        self._wait(lambda: self.status is not None, timeout, "the end of the machine", ending=True)
        return self.status

    def powered_off(self):
        """True when the machine ended by its own `quit`: it said so, and the emulator agrees."""
        with self.changed:
            said = POWER_OFF in self.screen.lines
            return said and self.status in self.engine.good_exits

    def _wait(self, look, timeout, what, ending=False):
        """Calls look() at each change, and now and then, until it returns something true."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                seen = look()
                if seen:
                    return seen
                if self.status is not None and not ending:
                    raise MachineError(f"the machine ended while waiting for {what}\n{self.tail()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise MachineError(f"{timeout} seconds passed without {what}\n{self.tail()}")
                self.changed.wait(min(left, SETTLE_SECONDS))

    def tail(self):
        """The last lines of output and, where it says anything, of the emulator's own log."""
        with self.changed:
            lines = self.screen.lines[-TAIL_LINES:] + [self.screen.current]
        text = "\n".join(f"  | {line}" for line in lines)
        if self.status not in (None, *self.engine.good_exits):
            text += f"\n{self.engine.name} ended with status {self.status}\n{self.emulator_says()}"
        return text

    def emulator_says(self):
        said = []
        for name in ("emulator.log", "bochs.log"):
            try:
                path = os.path.join(self._folder, name)
                with open(path, encoding="utf-8", errors="replace") as log:
                    text = "".join(c for c in log.read() if c == "\n" or c.isprintable())
                said += text.splitlines()[-8:]
            except OSError:
                pass
        return "\n".join(f"  {self.engine.name}: {line}" for line in said if line.strip())

    def stop(self):
        """Kills whatever still runs and removes every trace. May be called twice."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._reader.join()
        self._close()

    def _close(self):
        for name in ("_master", "_slave", "_news", "_news_write"):
            if getattr(self, name) is not None:
                os.close(getattr(self, name))
                setattr(self, name, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
