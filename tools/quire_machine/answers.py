"""What the console answers in its form for programs (docs/monitor.schema.json), and how the same
answer looks in the form for people."""

import json

UNITS = "KMGTPE"


class Answer:
    """The objects of one command's answer, in order; `end` is the last of them."""

    def __init__(self, objects):
        self.objects = objects

    @classmethod
    def of(cls, lines):
        """Out of printed lines: an answer's start with a brace, and nobody else's do."""
        return cls([json.loads(line) for line in lines if line.startswith("{")])

    @property
    def complete(self):
        return bool(self.objects) and self.objects[-1]["kind"] == "end"

    @property
    def code(self):
        """E_OK, or the name of the error."""
        return self.objects[-1]["code"]

    @property
    def ok(self):
        return self.code == "E_OK"

    @property
    def errors(self):
        return self._texts("error")

    @property
    def titles(self):
        return self._texts("title")

    @property
    def notes(self):
        return self._texts("note")

    @property
    def quoted(self):
        return self._texts("quote")

    def records(self, name):
        """The values of each record of this type, in order."""
        return [each["values"] for each in self.objects if each.get("record") == name]

    def facts(self, name):
        """The values of the only record of this type."""
        (only,) = self.records(name)
        return only

    def _texts(self, kind):
        return [each["text"] for each in self.objects if each["kind"] == kind]


def address(text):
    """An address, or whatever is hexadecimal, as a number; None stays None."""
    return None if text is None else int(text, 16)


def size_text(count):
    """A number of bytes in words, as size_text() in lib/format.c."""
    units, unit, below = "B" + UNITS, 0, 0
    while count and count % 1024 == 0:
        count, unit = count // 1024, unit + 1
    if count < 10000:
        return f"{count}{units[unit]}"
    while count >= 1024:
        count, below, unit = count // 1024, count % 1024, unit + 1
    tenths = (below * 10 + 512) // 1024
    return f"{count + tenths // 10}.{tenths % 10}{units[unit]}"


def quoted_text(text):
    """A quoted line as people see it."""
    shown = (
        "    " if c == "\t" else c if " " <= c < "\x7f" else f"\\x{ord(c):02x}" for c in text
    )
    return "  " + "".join(shown)


def shown_as(value, kind, in_table):
    """A value as people see it; `kind` is the schema's name of what it is."""
    if value is None:
        return "-"
    if kind == "flag":
        return "yes" if value else "no"
    if kind == "bytes":
        return size_text(value)
    if kind == "frames" and not in_table:
        return f"{value} ({size_text(value * 4096)})"
    return str(value)


def text_lines(objects, kinds):
    """The lines of the form for people, with their blanks folded; kinds(record, values) names what each
    value is, as a dict. Headings of tables and the names of facts are left out: only the console knows
    how columns are called there."""
    lines = []
    for each in objects:
        kind = each["kind"]
        if kind == "row":
            names = kinds(each["record"], each["values"])
            cells = [shown_as(value, names[key], True) for key, value in each["values"].items()]
            lines.append(" ".join(cells))
        elif kind == "facts":
            names = kinds(each["record"], each["values"])
            for key, value in each["values"].items():
                if value is not None:
                    lines.append(": " + shown_as(value, names[key], False))
        elif kind == "quote":
            lines.append(quoted_text(each["text"]))
        elif kind == "error":
            lines.append("error: " + each["text"])
        elif kind != "end":
            lines.append(each["text"])
    return [" ".join(line.split()) for line in lines]
