"""The session in README.md: made by a command, and with the questions that it should have."""

import os
import re
import shutil
import subprocess
import sys

import transcript
from support import DEMO_ISO, ROOT, TOOLS

README = os.path.join(ROOT, "README.md")


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


def test_it_is_made_by_a_command(tmp_path):
    readme, whole = tmp_path / "README.md", tmp_path / "transcript.txt"
    shutil.copy(README, readme)
    command = [sys.executable, os.path.join(TOOLS, "transcript.py"), DEMO_ISO, "--engine", "bochs"]
    command += ["--readme", str(readme), "-o", str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    check(transcript.README_COMMANDS, between_marks(readme))
    check(transcript.WHOLE_COMMANDS, whole.read_text(encoding="utf-8"))
    # All else of the page is as it was.
    with open(README, encoding="utf-8") as page:
        before = page.read().split(transcript.BEGIN)[0]
    assert readme.read_text(encoding="utf-8").split(transcript.BEGIN)[0] == before
