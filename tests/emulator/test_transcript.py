"""The session in README.md: made by a command, and with the questions that it should have."""

import os
import re
import shutil
import subprocess
import sys
from itertools import takewhile

import pytest

import transcript
from machines import cells
from support import DEMO_ISO, ROOT, TOOLS

pytestmark = pytest.mark.one_vendor("the session shown is one with EPTs")

README = os.path.join(ROOT, "README.md")
MONITOR = os.path.join(ROOT, "docs", "MONITOR.md")


def asked(text):
    return re.findall(r"^quire> (.*)$", text, re.M)


def pattern(command):
    return re.sub(r"\\{\w+\\}", r"\\w+", re.escape(command))


def between_marks(path):
    with open(path, encoding="utf-8") as page:
        return page.read().split(transcript.BEGIN)[1].split(transcript.END)[0]


def check(commands, text):
    seen = asked(text)
    assert len(seen) == len(commands)
    for command, line in zip(commands, seen):
        assert re.fullmatch(pattern(command), line)
    assert not re.search("^error: ", text, re.M)


def test_the_readme_shows_a_session():
    check(transcript.README_COMMANDS, between_marks(README))
    with open(os.path.join(ROOT, "docs", "transcript.txt"), encoding="utf-8") as whole:
        check(transcript.WHOLE_COMMANDS, whole.read())


def without_empty_columns(lines):
    """A heading loses the names under which no row has anything: these are shown where there is room."""
    for i, line in enumerate(lines):
        names = cells(line) if re.match(r"  +[a-z]", line) else []
        below = [cells(row) for row in takewhile(lambda row: row.startswith("  "), lines[i + 1 :])]
        below = [row for row in below if len(row) == len(names)]
        empty = {name for name, column in zip(names, zip(*below)) if set(column) == {"-"}}
        yield "  " + "  ".join(name for name in names if name not in empty) if empty else line


def shape(example):
    """What of an example does not change from build to build: its questions, headings, names and
    sentences. Of the rows of a table, which may be more or fewer, that there are some."""
    lines = []
    for line in without_empty_columns(example.splitlines()):
        line = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?[KMGTB]?|\w+\+#", "#", line)
        line = " ".join(re.sub(r"(?<=[ |])[r-][w-][x-][u-][g-](?= |$)|\b(yes|no)\b", "#", line).split())
        if "#" not in line and ("..." not in line) and not line.startswith("["):
            lines.append(line)
        elif re.match(r"\w[\w ]*: ", line) and not line.startswith("quire: "):
            lines.append(line.split(": ")[0])
    return lines


def check_reference(before, after):
    """Both have the same examples, and what is asked in one is answered alike in the other."""
    old, new = transcript.EXAMPLE.findall(before), transcript.EXAMPLE.findall(after)
    assert len(old) == len(new) > 40
    assert transcript.EXAMPLE.sub("", before) == transcript.EXAMPLE.sub("", after)
    for (_, shown), (_, made) in zip(old, new):
        assert max(map(len, made.splitlines())) <= transcript.LONGEST_JSON
        missing = set(shape(shown)) - set(shape(made))
        assert not missing, f"{missing} is no longer said:\n{made}"


def test_it_is_made_by_a_command(tmp_path):
    readme, whole = tmp_path / "README.md", tmp_path / "transcript.txt"
    monitor = tmp_path / "MONITOR.md"
    shutil.copy(README, readme)
    shutil.copy(MONITOR, monitor)
    command = [sys.executable, os.path.join(TOOLS, "transcript.py"), DEMO_ISO, "--engine", "bochs"]
    command += ["--readme", str(readme), "--monitor", str(monitor), "-o", str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    check(transcript.README_COMMANDS, between_marks(readme))
    check(transcript.WHOLE_COMMANDS, whole.read_text(encoding="utf-8"))
    # All else of the page is as it was.
    with open(README, encoding="utf-8") as page:
        before = page.read().split(transcript.BEGIN)[0]
    assert readme.read_text(encoding="utf-8").split(transcript.BEGIN)[0] == before
    with open(MONITOR, encoding="utf-8") as page:
        check_reference(page.read(), monitor.read_text(encoding="utf-8"))
