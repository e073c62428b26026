"""The launcher as a person uses it: transcripts, exit statuses, and ways out that leave nothing
behind and the terminal as it was."""

import os
import re
import signal
import subprocess
import sys
import termios
import time

import pexpect
import pytest

from machines import SPIN
from support import TOOLS

pytestmark = pytest.mark.one_vendor("the launcher, whose guest is paused; names its engines")

LAUNCH = [sys.executable, "-B", os.path.join(TOOLS, "launch.py")]


@pytest.fixture
def iso(make_iso):
    return make_iso([(SPIN, "spin mem=1M paused")])


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """An environment without settings of the person's, and a TMPDIR that must be empty again."""
    for name in ("ENGINE", "CPU", "MEMORY", "CMDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def launch(iso, *options, **more):
    return subprocess.run(
        [*LAUNCH, iso, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **({"stdin": subprocess.DEVNULL} | more if "input" not in more else more),
    )


def state_of(pid):
    """The letter of /proc/PID/stat, X for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def runs(pid):
    return state_of(pid) not in "ZX"


def emulators_of(pid):
    """The children of a process that still run."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return [int(child) for child in children.read().split() if runs(int(child))]


def gone(pids):
    deadline = time.monotonic() + 5
    while any(runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# Without a keyboard.


def test_commands_give_a_transcript_and_status_0(iso, settings):
    done = launch(iso, "--cmds", "version; guests; quit")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    shown = [line for line in lines if line.startswith("quire> ")]
    assert shown == ["quire> version", "quire> guests", "quire> quit"]
    assert lines[-1] == "quire: power off"
    assert any(re.match(r"launcher: engine \w+: ", line) for line in lines)
    assert os.listdir(settings) == []


def test_settings_come_from_the_environment(iso, settings, monkeypatch):
    monkeypatch.setenv("CMDS", "version;quit")
    monkeypatch.setenv("ENGINE", "bochs")
    monkeypatch.setenv("CPU", "corei7_haswell_4770")
    monkeypatch.setenv("MEMORY", "128")
    done = launch(iso)
    assert done.returncode == 0, done.stdout
    assert "launcher: engine bochs, as asked: VMX with EPT emulated" in done.stdout
    assert "launcher: Bochs, CPU model corei7_haswell_4770, 128 MiB" in done.stdout


def test_commands_without_quit_are_ended(iso, settings):
    done = launch(iso, "--cmds", "version")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "quire: power off"
    assert lines[lines.index("quire> quit") + 1 :][0] == "quire: g1 spin: killed"


@pytest.mark.parametrize("text", ["version\nguests\n", "version\r\n\n  guests\nquit\n", ""])
def test_standard_input_that_is_no_terminal(iso, settings, text):
    done = launch(iso, input=text)
    assert done.returncode == 0, done.stdout
    shown = [line[7:] for line in done.stdout.splitlines() if line.startswith("quire> ")]
    assert shown == [*(["version", "guests"] if text else []), "quit"]


def test_qemu_says_what_it_emulates(iso, settings):
    done = launch(iso, "--engine", "qemu", "--cmds", "guests; walk host 0xffffffff80200000; quit")
    assert done.returncode == 0, done.stdout
    assert "launcher: engine qemu, as asked: AMD-V with nested paging emulated" in done.stdout
    assert "verdict: mapped" in done.stdout


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--engine", "xen"], "there is no engine 'xen'; ENGINE is auto, kvm, bochs, qemu or nested"),
        (["--memory", "lots"], "memory is a number of MiB from 32 up, not 'lots'"),
        (["--memory", "8"], "memory is a number of MiB from 32 up, not '8'"),
    ],
)
def test_what_cannot_be_started_is_status_2(iso, settings, options, sentence):
    done = launch(iso, "--cmds", "quit", *options)
    assert done.returncode == 2
    assert sentence in done.stdout


def test_no_image(settings):
    done = launch("/nowhere/quire.iso", "--cmds", "quit")
    assert done.returncode == 1
    assert "launcher: there is no image /nowhere/quire.iso" in done.stdout


@pytest.mark.parametrize(
    "engine, cpu, sentences",
    [
        ("bochs", "no_such", ["bochs has no CPU model 'no_such'\n", "corei7_icelake_u", "tigerlake"]),
        ("bochs", "icelake_u", ["'icelake_u'; did you mean corei7_icelake_u?"]),
        ("qemu", "no_such,+svm", ["qemu has no CPU model 'no_such'\n", "qemu64", "max"]),
    ],
)
def test_a_cpu_model_that_is_none(iso, settings, engine, cpu, sentences):
    done = launch(iso, "--engine", engine, "--cpu", cpu, "--cmds", "quit")
    assert done.returncode == 2
    for each in sentences:
        assert each in done.stdout, done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert os.listdir(settings) == []


def test_an_emulator_that_gives_up_is_reported(iso, settings):
    done = launch(iso, "--engine", "bochs", "--cpu", "corei7_icelake_u, odd=1", "--cmds", "quit")
    assert done.returncode == 1
    assert "launcher: the machine ended without being switched off (bochs ended with" in done.stdout
    assert "cpu directive malformed" in done.stdout
    assert os.listdir(settings) == []


@pytest.mark.seconds(600)
def test_more_memory_than_fits_below_4_gib(iso, settings):
    done = launch(iso, "--engine", "bochs", "--memory", "3100", "--cmds", "mem")
    assert done.returncode == 0, done.stdout
    assert "3100 MiB (28 MiB of them above 4 GiB); slow to start" in done.stdout
    assert re.search(r"0x100000000 +0x101bfffff +28M +usable", done.stdout), done.stdout


def test_a_machine_that_ends_by_a_fault_is_no_success(make_iso, settings):
    done = launch(make_iso([], "selftest=ud"), "--cmds", "quit")
    assert done.returncode == 1
    assert "#UD undefined opcode" in done.stdout
    assert "launcher: the machine ended without being switched off" in done.stdout


def test_a_run_that_takes_too_long_is_ended(iso, settings):
    done = launch(iso, "--cmds", "resume g1; guests; quit", "--seconds", "0")
    assert done.returncode == 1
    assert "launcher: 0 seconds passed, still no prompt" in done.stdout
    assert os.listdir(settings) == []


# At a terminal.


class Terminal:
    """The launcher at a terminal of its own."""

    def __init__(self, iso):
        self.child = pexpect.spawn(LAUNCH[0], [*LAUNCH[1:], iso], timeout=30, echo=True)
        self.before = termios.tcgetattr(self.child.child_fd)
        self.child.expect("quire> ")
        self.emulators = emulators_of(self.child.pid)
        assert self.emulators

    def is_raw(self):
        return not termios.tcgetattr(self.child.child_fd)[3] & (termios.ICANON | termios.ECHO)

    def ended(self):
        """The exit status, once the launcher has ended; nothing of it may be left."""
        self.child.expect(pexpect.EOF)
        after = termios.tcgetattr(self.child.child_fd)
        self.child.close()
        assert after == self.before, "the terminal is not as it was"
        assert gone(self.emulators), "an emulator still runs"
        return self.child.exitstatus


@pytest.fixture
def terminal(iso, settings):
    opened = Terminal(iso)
    yield opened
    opened.child.close(force=True)


def test_keys_reach_the_console_and_quit_ends_it(terminal, settings):
    assert terminal.is_raw()
    terminal.child.send("versoin\b\b\bion\r")  # a slip of the finger, mended by the line editor
    terminal.child.expect("command line: ")
    terminal.child.expect("quire> ")
    terminal.child.send("\x1b[A\r")  # the line before, by the up key
    terminal.child.expect("command line: ")
    terminal.child.send("quit\r")
    terminal.child.expect("quire: power off")
    assert terminal.ended() == 0
    assert os.listdir(settings) == []


def gets_out_by_ctrl_c(terminal, settings):
    time.sleep(1)
    terminal.child.send("\x03")
    assert terminal.ended() == 130
    assert os.listdir(settings) == []


def test_ctrl_c_gets_out_while_a_guest_runs(terminal, settings):
    terminal.child.send("resume g1\r")
    terminal.child.expect("quire> ")
    gets_out_by_ctrl_c(terminal, settings)


def test_ctrl_c_drops_a_line_that_came_with_it(terminal, settings):
    terminal.child.send("half a comm\x03")
    terminal.child.expect_exact("^C")
    terminal.child.expect("quire> ")
    gets_out_by_ctrl_c(terminal, settings)


def test_ctrl_c_is_the_guests_that_is_attached(terminal, settings):
    terminal.child.send("attach g1\r")
    terminal.child.expect("comes back")
    time.sleep(1)
    terminal.child.send("\x03")
    time.sleep(1)
    assert terminal.child.isalive()
    terminal.child.send("\x1d")
    terminal.child.expect("g1 spin: detached")
    terminal.child.expect("quire> ")
    terminal.child.send("version\r")
    terminal.child.expect("command line: ")
    terminal.child.expect("quire> ")
    gets_out_by_ctrl_c(terminal, settings)


def test_quotes_keep_the_semicolons_of_commands(iso, settings):
    done = launch(iso, "--cmds", 'print "a;b"; version')
    assert 'quire> print "a;b"\n' in done.stdout, done.stdout
    assert "quire> version\n" in done.stdout
    assert done.returncode == 0


def test_ctrl_c_drops_a_line_before_it_gets_out(terminal, settings):
    terminal.child.send("half a comm")
    terminal.child.expect("half a comm")
    time.sleep(1)
    terminal.child.send("\x03")
    terminal.child.expect_exact("^C")
    terminal.child.expect("quire> ")
    time.sleep(1)
    terminal.child.send("\x03")
    terminal.child.expect("interrupted; the machine is gone")
    assert terminal.ended() == 130
    assert os.listdir(settings) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_every_polite_signal_gets_out(terminal, settings, name):
    number = getattr(signal, name)
    os.kill(terminal.child.pid, number)
    assert terminal.ended() == 128 + number
    assert os.listdir(settings) == []


def test_no_emulator_outlives_a_launcher_that_is_killed(terminal):
    os.kill(terminal.child.pid, signal.SIGKILL)
    assert gone(terminal.emulators)


def test_an_emulator_that_is_killed_ends_the_session(terminal):
    os.kill(terminal.emulators[0], signal.SIGKILL)
    terminal.child.expect("launcher: the machine ended without being switched off")
    assert terminal.ended() == 1


def test_a_terminal_that_goes_away(terminal, settings):
    terminal.child.ptyproc.fileobj.close()
    assert gone([terminal.child.pid, *terminal.emulators])
    assert os.listdir(settings) == []
