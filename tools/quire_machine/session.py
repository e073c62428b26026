"""A person, a list of commands, or a pipe at the console of a machine.

Each session shows all output and returns how it ended: None when the machine powered off by its
own `quit`, else a sentence.
"""

import atexit
import os
import re
import select
import signal
import sys
import termios
import time

from quire_machine.console import PROMPT, MachineError
from quire_machine.patience import Patience
from quire_machine.screen import Screen

CTRL_C = b"\x03"
LEAVE = b"\x1d"  # Ctrl-], by which the console takes a guest's serial port back
LINE_ENDS = re.compile(rb"[\r\n\x03\x15]")  # Enter, Ctrl-C, Ctrl-U
ATTACHED = re.compile(r"attached to (g\d+ .+) \(\w+\)")
MORE = "-- more"  # what the console asks where the screen is full
SILENCE_SECONDS = 60  # in a session without a person: nothing printed for so long is a failure


class Interrupted(BaseException):
    """The person, or the system, wants out."""

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


POLITE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def leave(signum, _frame=None):
    """Ends the session. One request is enough: the cleaning up that follows is not disturbed."""
    for each in POLITE_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signum)


def catch_signals():
    """Every polite request to die becomes Interrupted, so that whoever holds something lets go."""
    for each in POLITE_SIGNALS:
        signal.signal(each, leave)


class RawTerminal:
    """The terminal on `fd`, with every key handed on as it is typed. Output is still processed, so
    that messages of ours need no carriage returns. Restored on the way out, whichever it is."""

    def __init__(self, fd):
        self.fd = fd
        self.saved = None

    def __enter__(self):
        self.saved = termios.tcgetattr(self.fd)
        atexit.register(self.restore)
        raw = termios.tcgetattr(self.fd)
        raw[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[3] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, raw)
        return self

    def __exit__(self, *_):
        self.restore()

    def restore(self):
        if self.saved is None:
            return
        try:
            termios.tcsetattr(self.fd, termios.TCSANOW, self.saved)
        except termios.error:
            pass  # the terminal itself is gone
        self.saved = None


def show(data):
    """Writes bytes to standard output, in the order of print()."""
    sys.stdout.flush()
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def verdict(machine):
    """After the machine has ended: None, or what was wrong about its end."""
    if machine.powered_off():
        return None
    said = machine.emulator_says()
    return (
        f"the machine ended without being switched off ({machine.engine.name} ended with status "
        f"{machine.status})" + (f"\n{said}" if said else "")
    )


def wants_colour():
    """Whether the person's terminal has colours, and the person has nothing against them
    (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def introduce(keyboard):
    """What a terminal would say of itself, had the console asked: its attributes and its size."""
    try:
        columns, rows = os.get_terminal_size(keyboard)
    except OSError:
        columns, rows = 0, 0
    colour = b"\x1b[?62;22c" if wants_colour() else b"\x1b[?62c"
    return colour + b"\x1b[8;%d;%dt" % (rows, columns)


class Attachment:
    """Whether a guest is attached, by what the console says. A guest cannot say it for the console: before,
    its lines are marked as its own; meanwhile they count only behind the Ctrl-] that asks for it."""

    def __init__(self, machine):
        self.machine = machine
        self.looked = 0  # at so many finished lines
        self.guest = None
        self.left = False  # Ctrl-] was typed

    def look(self):
        """Reads on; returns the guest, as "g2 shell", or None."""
        with self.machine.changed:
            lines = self.machine.screen.lines
            new = lines[self.looked :]
            self.looked = len(lines)
        for line in new:
            begun = ATTACHED.match(line)
            if self.guest is None and begun:
                self.guest, self.left = begun[1], False
            elif self.guest and line == f"{self.guest}: it has ended, and so detached":
                self.guest = None
            elif self.guest and self.left and line == f"{self.guest}: detached":
                self.guest = None
        if self.left and self.machine.at_prompt():  # nobody was attached: a guest's text was shown
            self.guest = None
        return self.guest

    def typed(self, keys):
        self.left |= LEAVE in keys


def line_behind(line, keys):
    """What was typed of the line that the console is in, echoed or not, once these keys have followed."""
    return LINE_ENDS.split(line + keys)[-1]


def has_use_for_ctrl_c(machine, line=b"", attached=None):
    """Whether a guest is attached, or there is a line to drop, or a long answer to stop, at the console:
    then that is what Ctrl-C is for. Otherwise it gets out. `line` are the keys of a line that may not have
    been echoed."""
    with machine.changed:
        row = machine.screen.current
    if attached or row.startswith(MORE):
        return True
    return row.startswith(PROMPT) and bool(line.strip() or row.strip() != PROMPT.strip())


def wants_out(machine, line, keys, attached):
    """Whether there is a Ctrl-C among the keys that nobody but the launcher has a use for."""
    *before, _ = keys.split(CTRL_C)
    for part in before:
        if not has_use_for_ctrl_c(machine, line_behind(line, part), attached):
            return True
        line = b""
    return False


def interactive(machine, keyboard):
    """Keys go to the machine, its output to the terminal, until it ends or Ctrl-C gets out."""
    typed = b""
    told = None  # what the console knows of the terminal
    line = b""  # what was typed since a line was ended
    attachment = Attachment(machine)
    with RawTerminal(keyboard):
        while machine.status is None:
            # Told at a prompt only: elsewhere it could be taken for a guest's input.
            if not typed and told != introduce(keyboard) and machine.at_prompt():
                told = typed = introduce(keyboard)
            ready, _, _ = select.select([machine, keyboard], [], [], 0.02 if typed else 0.3)
            if keyboard in ready:
                keys = os.read(keyboard, 1024)
                if not keys or wants_out(machine, line, keys, attachment.look()):
                    leave(signal.SIGINT if keys else signal.SIGHUP)
                attachment.typed(keys)
                line = line_behind(line, keys)
                typed += keys
            typed = typed[machine.offer(typed) :] if typed else typed
            if machine in ready:
                show(machine.take_output())
        show(machine.take_output())
    return verdict(machine)


class Transcript:
    """What a machine prints, on standard output: as it is for a terminal, else line by line as a
    terminal would have shown it."""

    def __init__(self):
        self.screen = None if sys.stdout.isatty() else Screen()

    def show(self, data):
        if self.screen is None:
            show(data)
            return
        self.screen.feed(data)
        lines, self.screen.lines = self.screen.lines, []
        for line in lines:
            print(line)
        sys.stdout.flush()

    def end(self):
        """What stands in a line that was not finished."""
        if self.screen and self.screen.current.strip():
            self.show(b"\n")

    def note(self, text):
        """A line of the launcher's own, above the one that the console is in."""
        start = "\r\033[K" if self.screen is None else ""
        print(f"{start}launcher: {text}", flush=True)


class Conversation:
    """Commands typed one at a time, each when the prompt has come back."""

    def __init__(self, machine, seconds, patience):
        self.machine = machine
        self.seconds = seconds * machine.slowness
        self.silence = SILENCE_SECONDS * machine.slowness
        self.deadline = time.monotonic() + self.seconds
        self.told = False  # how wide the terminal is
        self.patience = patience
        self.spoken = False  # whether a command has been typed
        self.transcript = Transcript()

    def pump(self, done, waiting_for, waiting=None):
        """Shows output until done() or the end of the machine; False when it ended. `waiting` is the
        patience with guests that run on."""
        machine, silent_since = self.machine, time.monotonic()
        while machine.status is None:
            if done():
                return True
            select.select([machine], [], [], 0.05)
            data = machine.take_output()
            self.transcript.show(data)
            now = time.monotonic()
            pressed_before = waiting and waiting.pressed
            if waiting and waiting.press() and not pressed_before:
                self.transcript.note("guests run on; a key brings the console")
            silent_since = now if data or (waiting and waiting.runs()) else silent_since
            if now > self.deadline:
                raise MachineError(f"{self.seconds} seconds passed, still no {waiting_for}")
            if now - silent_since > self.silence:
                raise MachineError(f"{self.silence} seconds of silence, still no {waiting_for}")
        self.transcript.show(machine.take_output())
        self.transcript.end()
        return False

    def prompt(self):
        waiting = Patience(self.machine, self.patience, booting=not self.spoken)
        return self.pump(self.machine.at_prompt, "prompt", waiting)

    def tell_width(self):
        """Once: answers that a person reads here fit the terminal."""
        if not self.told and sys.stdout.isatty():
            self.machine.set_width(os.get_terminal_size(sys.stdout.fileno()).columns)
        self.told = True

    def say(self, command):
        """Types a command once the prompt is there; False when the machine has ended."""
        machine = self.machine
        if not self.prompt():
            return False
        self.tell_width()
        machine.send(command)
        if not self.pump(lambda: machine.shows_typed(command), f"echo of {command!r}"):
            return False
        count = len(machine.screen.lines)
        machine.send("\r")
        self.spoken = True
        return self.pump(lambda: machine.entered(command, count), f"answer to {command!r}")


def scripted(machine, commands, seconds, patience):
    """Types each of `commands`; ends with `quit` where they do not. Guests that run on while one is
    waited for do so for `patience` seconds."""
    talk = Conversation(machine, seconds, patience)
    for command in commands:
        if not talk.say(command):
            return verdict(machine)
    # The last command may have been the `quit`: its end or the next prompt tells.
    if talk.prompt():
        talk.say("quit")
        talk.pump(lambda: False, "end of the machine")
    return verdict(machine)


def piped(machine, lines, seconds, patience):
    """The same for commands that come from a pipe or a file, line by line as they come."""
    return scripted(machine, (line.strip() for line in lines if line.strip()), seconds, patience)
