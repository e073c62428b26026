"""`make picture` end to end: a machine is booted and asked, and Chromium shows its guests by name."""

import json
import os
import subprocess
import sys

import pytest

import browser
from machines import demo_guests
from support import DEMO_ISO, TOOLS

pytestmark = pytest.mark.one_vendor(
    "the picture of what a machine answers, which has no vendor's words; names its engine"
)


def test_the_demonstration_as_a_picture(tmp_path):
    page = tmp_path / "picture.html"
    command = [sys.executable, os.path.join(TOOLS, "picture.py"), "--boot", DEMO_ISO]
    command += ["--engine", "qemu", "-o", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    names = [f"g{number} {name}" for number, name in enumerate(demo_guests(), 1)]
    for size in ((1500, 950), (600, 900)):
        seen = json.loads(browser.measure(page, str(tmp_path), size, browser.LOOK))
        assert seen["listed"] == names and sorted(seen["names"]) == names
        assert seen["ready"] and seen["clashes"] == 0 and seen["outside"] == 0 and seen["wide"] <= 0, seen
        assert seen["ribbons"] >= len(names) and seen["frames"] > 20 and seen["chosen"] > 0, seen
