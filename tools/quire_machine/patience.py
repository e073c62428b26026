"""How long guests may run on before somebody who waits for the console presses a key.

The console appears when no guest can run any more; one that never ends keeps it away until a key is
pressed. So does the command `wait`, and `attach` until one key is.
"""

import re
import time
from argparse import ArgumentTypeError

LEAST_SECONDS = 2.0  # between two keys, and for the answer to a command
PATIENCE_SECONDS = 10.0  # the demonstration's guests take about four

# Ctrl-]: brings the console, ends `wait`, leaves a guest's serial port without reaching the guest, and is
# nothing at a prompt. So it does no harm where the guests have ended meanwhile.
KEY = "\x1d"

# What is printed when the first guest has been entered. A key before that would be lost, or too early.
GUESTS_RUN = re.compile(r"^quire: \d+ .* from entry to the first guest instruction$")

# A machine that halts while its guests sleep uses no time of its own: then the clock on the wall counts.
WALL_FACTOR = 4


def seconds(text):
    """Of the person's, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise ArgumentTypeError(f"patience is a number of seconds, not {text!r}")
    return value


class Patience:
    """For one wait; `booting` as Console.bring_prompt() has it."""

    def __init__(self, console, seconds, booting):
        self.console = console
        self.seconds = seconds * console.slowness
        self.looked = 0
        self.since = None
        self.pressed = False
        if not booting:
            self.seconds = max(seconds, LEAST_SECONDS)  # an answer is no wait for guests
            self._begin()

    def _begin(self):
        self.since = self.console.seconds_run(), time.monotonic()

    def runs(self):
        """True while guests are given time, and silence means nothing."""
        return self.since is not None and not self.pressed

    def longest(self):
        return self.seconds * WALL_FACTOR

    def press(self):
        """Presses the key when it is time. Returns whether it did."""
        if self.since is None:
            with self.console.changed:
                lines = self.console.screen.lines[self.looked :]
            self.looked += len(lines)
            if any(GUESTS_RUN.match(line) for line in lines):
                self._begin()
            return False
        run, wall = self.since
        if (
            self.console.seconds_run() - run < self.seconds
            and time.monotonic() - wall < self.longest()
        ):
            return False
        self.console.press(KEY)
        self.seconds = max(self.seconds, LEAST_SECONDS)
        self._begin()
        self.pressed = True
        return True
