"""What a person would see: serial output rendered into lines.

The console redraws the line being typed (carriage return, cursor movement, erase), so that raw
bytes cannot simply be searched. A Screen applies just these, and offers finished lines, the
current one, and the last row that was taken away whole to make room for somebody's output.
"""

import codecs
import re

# One control sequence: ESC [ parameters final.
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([@-~])")
LONGEST_CONTROL = 32


class Screen:
    def __init__(self):
        self.lines = []  # finished, without trailing blanks
        self.erased = ""  # the last row that was erased whole
        self.erased_at = 0  # how many lines were finished then
        self._cells = []  # of the current line
        self._column = 0
        self._pending = ""  # a control sequence that has not arrived in full
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def current(self):
        return "".join(self._cells)

    def feed(self, data):
        text = self._pending + self._decoder.decode(data)
        self._pending = ""
        at = 0
        while at < len(text):
            char = text[at]
            if char != "\x1b":
                self._put(char)
                at += 1
                continue
            found = CONTROL.match(text, at)
            if found:
                self._control(found.group(1), found.group(2))
                at = found.end()
            elif len(text) - at < LONGEST_CONTROL and re.fullmatch(r"\x1b(\[[0-9;?]*)?", text[at:]):
                self._pending = text[at:]
                return
            else:
                at += 1

    def _put(self, char):
        if char == "\n":
            self.lines.append(self.current.rstrip())
            self._cells, self._column = [], 0
        elif char == "\r":
            self._column = 0
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char >= " ":
            self._cells.extend(" " * (self._column - len(self._cells)))
            self._cells[self._column : self._column + 1] = [char]
            self._column += 1

    def _control(self, parameters, final):
        first = parameters.split(";")[0]
        count = int(first) if first.isdigit() else None
        if final == "C":
            self._column += min(count or 1, 512)
        elif final == "D":
            self._column = max(0, self._column - (count or 1))
        elif final == "G":
            self._column = min((count or 1) - 1, 512)
        elif final == "P":
            del self._cells[self._column : self._column + (count or 1)]
        elif final in "JK":
            if self._cells and (count == 2 or self._column == 0):
                self.erased, self.erased_at = self.current, len(self.lines)
            if count == 2:
                self._cells = []
            else:
                del self._cells[self._column :]
