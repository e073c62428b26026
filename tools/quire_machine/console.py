"""Quire's console at the other end of a byte stream: a terminal device, a socket, an emulator's port.

A thread reads it all the time (an emulator does not wait for a slow reader: what does not fit is
lost), keeps the bytes for whoever shows them, and renders them into lines for whoever waits for one.
"""

import os
import re
import select
import socket
import termios
import threading
import time
import tty

from quire_machine import sockets
from quire_machine.answers import Answer
from quire_machine.patience import KEY, PATIENCE_SECONDS, Patience
from quire_machine.screen import Screen

PROMPT = "quire> "
# A prompt counts once nothing has followed it for so long (a line being redrawn passes by it, unless nothing has
# been typed since the last one was entered), or once it was taken away bare for a guest's output: one that prints
# for ever is never silent.
SETTLE_SECONDS = 0.05
SETTLE_UNTYPED_SECONDS = 0.01
TAIL_LINES = 30
LAST_BYTES_SECONDS = 0.02
WAIT_SECONDS = 90  # a boot takes about two on an idle machine, and many times that on a busy one

# The console scrolls a line longer than its row sideways, and so shows the end of it.
ROW_AT_LEAST = 40

# What a terminal of so many columns, and of any height, says of itself.
WIDTH = "\x1b[8;0;{}t"
ANY_WIDTH = 1000

CANCEL = "\x03"  # drops whatever stands in the line, and so brings a fresh prompt
NEVER = float("inf")


def shows_typed(line, text):
    """True when `line` is the prompt with `text` typed behind it."""
    line = line.ljust(len(PROMPT))
    if not line.startswith(PROMPT):
        return False
    shown = line[len(PROMPT) :].rstrip()
    text = text.rstrip()
    return shown == text or (len(shown) >= ROW_AT_LEAST and text.endswith(shown))


class MachineError(Exception):
    """What was waited for did not come; the text ends with the last lines of output."""


class Console:
    """`line` is the descriptor of the stream, which the console closes; status is None until it ends."""

    slowness = 1  # times as long as Bochs takes for what the machine does; time limits are meant for Bochs

    def __init__(self, line):
        self.status = None
        self.about = None  # what machine it is, in words
        self.screen = Screen()
        self.changed = threading.Condition()
        self._raw = bytearray()  # output that take_output() has not handed on yet
        self._last_output = time.monotonic()
        self._width = None  # what the machine was told of us
        self._at = 0  # lines before this one have been looked at by expect()
        # A bare prompt that was erased after so many finished lines says that nothing is typed.
        self._bare_from = 0
        self._line = line
        self._news, self._news_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._leave, self._leave_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(line, False)
        self._reader = None

    def _start_reading(self):
        self._reader = threading.Thread(target=self._read, name="serial", daemon=True)
        self._reader.start()

    def _ended(self):
        """A descriptor that becomes readable when the other end is gone without the stream's saying
        so, or None."""
        return None

    def _status(self):
        """What the machine ended with."""
        return 0

    def _read(self):
        ended = self._ended()
        while self._read_once(ended):
            pass
        if ended is not None:
            os.close(ended)
        with self.changed:
            self.status = self._status()
            self.changed.notify_all()
        self._wake()

    def _read_once(self, ended):
        watched = [self._line, self._leave] + ([] if ended is None else [ended])
        ready, _, _ = select.select(watched, [], [])
        if self._line not in ready:
            # The last bytes may still be on their way through the kernel.
            ready, _, _ = select.select([self._line], [], [], LAST_BYTES_SECONDS)
        if not ready:
            return False
        try:
            data = os.read(self._line, 65536)
        except OSError:
            return False
        self._take(data)
        return bool(data)

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
        self._bare_from = NEVER
        return self._write(data)

    def press(self, key):
        """Types a key that leaves no mark in the line."""
        self._push(key.encode(), 30)

    def _write(self, data):
        try:
            return os.write(self._line, data)
        except BlockingIOError:
            return 0

    def send(self, data, timeout=30):
        """Types bytes or text on the serial line, at the pace at which the machine takes them."""
        self._bare_from = NEVER
        self._push(data.encode() if isinstance(data, str) else data, timeout)

    def _push(self, data, timeout):
        deadline = time.monotonic() + timeout
        while data and self.status is None:
            taken = self._write(data)
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
        """True when the console shows its bare prompt and waits for a command."""
        with self.changed:
            quiet = time.monotonic() - self._last_output
            needed = SETTLE_SECONDS if self._bare_from == NEVER else SETTLE_UNTYPED_SECONDS
            settled = self.screen.current == PROMPT and quiet >= needed
            return settled or (
                self.screen.erased == PROMPT and self.screen.erased_at >= self._bare_from
            )

    def shows_typed(self, text):
        """True when the console shows `text` typed behind its prompt, or did when a guest printed."""
        with self.changed:
            return shows_typed(self.screen.current, text) or shows_typed(self.screen.erased, text)

    def entered(self, text, start):
        """True once the line with `text` was entered, `start` lines of output or later; the prompt
        that counts is from then on the next one."""
        with self.changed:
            for index in range(start, len(self.screen.lines)):
                if shows_typed(self.screen.lines[index], text):
                    self._bare_from = index + 1
                    return True
        return False

    def wait_prompt(self, timeout=WAIT_SECONDS):
        """Waits until the console shows its bare prompt."""
        self._wait(self.at_prompt, timeout, "the prompt")

    def set_width(self, columns):
        """Text answers from here on fit into so many columns. At the prompt alone."""
        self.press(WIDTH.format(columns))
        self._width = columns

    def bring_prompt(self, patience=PATIENCE_SECONDS, timeout=WAIT_SECONDS, booting=True):
        """The same, but lets guests run on for `patience` seconds only: then it presses a key, as a
        person would. `booting`: their time begins when the first of them has been entered."""
        waiting = Patience(self, patience, booting)
        timeout += waiting.longest()

        def look():
            waiting.press()
            return self.at_prompt()

        self._wait(look, timeout, "the prompt")

    def command(self, text, timeout=WAIT_SECONDS, patience=None):
        """Types a command at the prompt and returns the lines it printed, up to the next prompt or
        the end of the machine. With `patience`, one that waits for guests does so no longer. They are
        not folded, unless set_width() was called."""
        self.wait_prompt(timeout)
        if self._width is None:
            self.set_width(ANY_WIDTH)
        self.send(text)
        self._wait(lambda: self.shows_typed(text), timeout, f"the echo of {text!r}")
        with self.changed:
            start = len(self.screen.lines)
        self.send("\r")
        self._wait(lambda: self.entered(text, start), timeout, f"an answer to {text!r}")
        try:
            if patience is None:
                self.wait_prompt(timeout)
            else:
                self.bring_prompt(patience, timeout, booting=False)
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

    def ask(self, text, timeout=WAIT_SECONDS, patience=None):
        """Types a command and returns its Answer, by the console's form for programs."""
        answer = Answer.of(self.command(f"{text} --json", timeout, patience))
        if not answer.complete:
            raise MachineError(f"the answer to {text!r} has no end\n{self.tail()}")
        return answer

    def synchronise(self, timeout=WAIT_SECONDS):
        """Brings a fresh prompt on a line that may be in any state."""
        self.send(KEY + CANCEL)
        with self.changed:
            self._bare_from = len(self.screen.lines)
        self.wait_prompt(timeout)

    def seconds_run(self):
        """Seconds that the machine has had to run in, from whenever on."""
        return time.monotonic()

    def wait_end(self, timeout=WAIT_SECONDS):
        """Waits for the machine to end; returns its status."""
        self._wait(lambda: self.status is not None, timeout, "the end of the machine", ending=True)
        return self.status

    def _wait(self, look, timeout, what, ending=False):
        """Calls look() at each change, and now and then, until it returns something true."""
        timeout *= self.slowness
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
                self.changed.wait(min(left, SETTLE_UNTYPED_SECONDS))

    def tail(self):
        """The last lines of output."""
        with self.changed:
            lines = self.screen.lines[-TAIL_LINES:] + [self.screen.current]
        return "\n".join(f"  | {line}" for line in lines)

    def stop(self):
        """Lets go of the stream. May be called twice."""
        if self._leave_write is not None:
            os.write(self._leave_write, b"!")
        if self._reader:
            self._reader.join()
        self._close()

    def _close(self):
        for name in ("_line", "_news", "_news_write", "_leave", "_leave_write"):
            if getattr(self, name) is not None:
                os.close(getattr(self, name))
                setattr(self, name, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def connect(address):
    """The console of a machine that runs already: `unix:PATH` and `tcp:HOST:PORT` are sockets, anything
    else the path of a terminal device. The prompt is there when this returns."""
    kind, _, rest = address.partition(":")
    try:
        if kind == "unix":
            line = socket.socket(socket.AF_UNIX)
            sockets.call(line.connect, rest)
            descriptor = line.detach()
        elif kind == "tcp":
            host, _, port = rest.rpartition(":")
            descriptor = socket.create_connection((host or "localhost", int(port))).detach()
        else:
            descriptor = os.open(address, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            tty.setraw(descriptor)
            settings = termios.tcgetattr(descriptor)
            settings[4] = settings[5] = termios.B115200
            termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    except (OSError, ValueError, termios.error) as error:
        raise MachineError(f"no machine at {address}: {error}") from error
    console = Console(descriptor)
    console.about = f"the machine at {address}"
    console._start_reading()
    try:
        console.synchronise()
    except BaseException:
        console.stop()
        raise
    return console
