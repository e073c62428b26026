"""Memtest86+, unmodified, from Debian's package: it looks at the machine by itself, shows what it finds on a VGA, and
is told what to do at a keyboard."""

import re

import pytest

from machines import memtest86plus

pytestmark = pytest.mark.one_vendor(
    "the same image runs by SVM in test_side_by_side.py", vendor="vmx"
)


@pytest.mark.seconds(600)
def test_memtest86(boot):
    machine = boot(modules=[(memtest86plus(), "memtest mem=8M expect=stopped -- console=none")])
    machine.expect("g1 memtest: Linux bzImage")
    machine.press("\r")
    machine.wait_prompt()

    def screen():
        return "\n".join(row["text"] for row in machine.ask("screen g1").records("screen row"))

    machine.wait_for(lambda: "<Enter> to start testing" in screen(), "its first screen", 200)
    assert "Memtest86+ v" in screen()
    assert re.search(r"^Memory  : +8MB ", screen(), re.M)
    machine.command("type g1 \\n")
    machine.wait_for(lambda: re.search(r"Test #[3-9]", screen()), "its third test", 300)
    assert re.search(r"Status: Testing .*\n.*Errors: 0$", screen(), re.M)
    machine.send("type g1 \\e\r")
    machine.expect(r"g1 memtest: stopped: the guest asked for a reset of its machine", 200)
    machine.expect("1 of 1 as expected")
