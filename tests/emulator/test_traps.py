"""Faults of the hypervisor itself: each must end in a whole report, on a stack that holds, and
never in a triple fault or a silent hang. The kernel's `selftest=` commits them."""

import re
import socket

import pytest

from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor("the hypervisor's own faults; no guest runs", vendor="svm")

FAULTS = {
    "pf": [
        r"#PF page fault \(vector 14, error code 0x2\)",
        r"write to 0xffff\w+ from supervisor mode: an absent page",
        r"walk of 0xffff\w+ in the kernel table",
    ],
    "wp": [
        r"#PF page fault \(vector 14, error code 0x3\)",
        r"write to 0xffffffff80\w+ from supervisor mode: a page that forbids it",
        r"PT .* leaf r-x",
    ],
    "nx": [
        r"#PF page fault \(vector 14, error code 0x11\)",
        r"fetch from 0xffffffff80\w+ from supervisor mode: a page that forbids it",
        r"PT .* leaf rw-",
    ],
    "ud": [r"#UD undefined opcode \(vector 6"],
    "df": [r"#DF double fault \(vector 8"],
    "stack": [
        r"#DF double fault \(vector 8",
        r"0xffffe\w+ is in the guard page of the main stack: that stack overflowed",
        r"descend\+0x",
    ],
    "nest": [r"while reporting"],
    "panic": [r"quire: panic: .*broken invariant: selftest == NULL"],
}
# Whose call the backtrace must get to; it is cut off in an endless descent, and a fault in the
# middle of a report or without a stack has none.
BACKTRACE_REACHES = {
    "pf": "finish_boot",
    "wp": "finish_boot",
    "nx": "finish_boot",
    "ud": "finish_boot",
    "stack": "descend",
    "panic": "finish_boot",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_reported_in_full(boot, fault):
    machine = boot(modules=[], cmdline=f"selftest={fault}")
    machine.expect(f"selftest: committing `{fault}`")
    machine.wait_end()
    text = "\n".join(machine.lines)
    for pattern in FAULTS[fault]:
        assert re.search(pattern, text), f"no {pattern!r} in\n{text}"
    if fault in BACKTRACE_REACHES:
        assert re.search(rf"backtrace:\n(.*\n)*?.* {BACKTRACE_REACHES[fault]}\+0x", text), text
    assert not machine.powered_off()


def test_a_selftest_that_is_not_known_is_named_and_passed_by(boot):
    machine = boot(modules=[], cmdline="selftest=nonsense")
    machine.expect("selftest: there is no `nonsense`; known: pf wp nx ud df stack nest panic")
    machine.wait_prompt()


class WithMonitor(Qemu):
    """QEMU with its own monitor on a socket, by which a machine check can be had."""

    def __init__(self, folder):
        super().__init__()
        self.socket = str(folder / "monitor")

    def command(self, iso, tty, folder):
        command = super().command(iso, tty, folder)
        command[command.index("-monitor") + 1] = f"unix:{self.socket},server,nowait"
        return command

    def say(self, text):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(self.socket)
            monitor.sendall(text.encode() + b"\n")
            monitor.settimeout(5)
            try:
                while monitor.recv(4096):
                    pass
            except TimeoutError:
                pass


# MCi_STATUS: valid, uncorrected, enabled, with MISC and ADDR, the CPU's state lost.
MCE = "mce 0 1 0xbe00000000000000 4 0x1000 0x8c"


def test_a_machine_check_of_the_host_is_named(boot, tmp_path):
    """In a guest it is an exit, which no emulator here makes of it: QEMU's gives it to the guest's own handler."""
    engine = WithMonitor(tmp_path)
    machine = boot(modules=[], engine=engine)
    machine.wait_prompt()
    engine.say(MCE)
    machine.wait_end()
    text = "\n".join(machine.lines)
    assert "#MC machine check (vector 18" in text
    assert "IA32_MCG_STATUS 0x4" in text
    assert "bank 1: status 0xbe00000000000000, address 0x1000" in text
    assert not machine.powered_off()
