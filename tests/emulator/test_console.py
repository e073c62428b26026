"""Every command of the console, asked rightly and wrongly, on a machine where guests run, wait,
have ended and were refused."""

import re

import pytest

from machines import SPIN, TABLES, assemble, facts, guest, quit_machine, rows, user_program

pytestmark = pytest.mark.both_vendors

HELLO, PAGING, WAITING, BROKEN = "g1", "g2", "g3", "g4"


@pytest.fixture(scope="module")
def machine(boot_for_module):
    """hello has ended, paging runs, waiting was never let run, broken was refused; a
    ring-3 program has been there."""
    modules = [
        (guest("hello.elf"), "hello mem=4M"),
        (assemble("paging.asm"), "paging mem=2M"),
        (SPIN, "waiting mem=1M lazy paused pc"),
        (b"no image", "broken"),
        (user_program("hello"), "user:hello"),
    ]
    booted = boot_for_module(modules=modules, cmdline="reserve=4M")
    booted.expect("g1 hello: passed")
    booted.press("\r")  # a key brings the console while guests run
    booted.wait_prompt()
    booted.wait_for(lambda: "[g2 paging] ready" in booted.screen.lines, "guest g2 to be ready")
    return booted


# Answers: a command, and what must be found in what it says (a regular expression, over all lines).
RIGHT = {
    "help": [r"^  walk  +\w.+  +host VA \| gN gpa\|gva X$", r"^  quit "],
    "help walk": [r"^walk host VA .*: ", r"^example: walk "],
    "mem": [r"^memory map$", r"^free frames: \d+", r"^  g2 paging +\d+"],
    "map host": [r"^  0xffff8000\w+ .* rw--g +WB +direct map$", r"r-x-g +WB +image$", r" stack$"],
    "map user": [r"^ +0x400000 .* r-xu- ", r"rw-u-"],
    "map g2": [r"^ +0x0 +0x\w+ .* rwx-- +WB +RAM$", r"^mapped: 16\d\dK|^mapped: 1\.?\d*"],
    "map g1": [r"g1 hello as it ended"],
    "walk host 0xffffffff80200000": [
        r"^  PT .* leaf .* r-x-g",
        r"^verdict: mapped",
        r"^hpa: 0x200000",
    ],
    "walk host 0xffff800000001234": [r"^verdict: mapped", r"^hpa: 0x1234"],
    "walk host 0xffffa00000000000": [r"^verdict: not mapped", r"^decided at: PDPT entry 0"],
    "walk g2 gpa 0x7c00": [r"^  PML4 ", r"^verdict: mapped", r"^rights: rwx--", r"^slot: RAM"],
    "walk g2 gpa 0xa0000": [r"^verdict: not mapped", r"^slot: outside every slot|^slot: hole"],
    "walk g3 gpa 4096": [r"^verdict: not mapped", r"^slot: lazy RAM"],
    "walk g1 gpa 0x1000": [r"g1 hello as it ended", r"^verdict: was mapped", r"^hpa: 0x"],
    "guests": [
        r"^  g1 +hello +passed +passed",
        r"^  g2 +paging +running",
        r"^  g3 +waiting +paused",
        r"^  g4 +broken +refused",
    ],
    "exits g2": [r"^  slice over +\d+", r"^most frames held: \d+"],
    "output g1": [r"^  hello from a guest$", r"^g1 hello printed \d+ bytes"],
    "output g3": [r"^g3 waiting printed 0 bytes"],
    "report g1": [r"There is no report"],
    "bt g2": [r"^  +0 +0x\w+ +- +-$", r"^ended: ", r"^g2 paging has no symbols: "],
    "bt cpu0": [r"^  +0 +0x\w+ +.*\bcpus_place\+0x", r"\bmonitor_execute\+0x", r"^cpu: 0$", r"^ended: the stack begins here$"],
    "print g1 guest_main": [r"^symbol: guest_main$"],
    "root g2": [
        r"^raw: 0x\w+5e$",
        r"^levels: 4",
        r"^memory type: WB",
        r"translates by the table of g2",
    ],
    "devices g3": [r"^  PIC +first: vectors 0x08", r"^  CMOS +20\d\d-", r"^  keyboard +controller: "],
    "screen g3": [r"^g3 waiting: 80 by 25, cursor at row 0, column 0$"],
    "screen g3 colour": [r"^g3 waiting: 80 by 25, "],
    "type g3 ls -l\\n": [r"^typed 6 characters on the keyboard of g3 waiting$"],
    "cpu": [r"^vendor: GenuineIntel", r"^  NX +yes +yes", r"^  VMX +yes +yes", r"EPT"],
    "cpus": [r"^ +0 +0 +online +guests and console "],
    "top": [r"^  g2 +\S+ +\w+ +0 +no ", r"^1 CPU; shares are of one of them, since "],
    "log": [r"^  quire: CPU: ", r"g4 broken: refused"],
    "log 2": [r"\A  .*\n  .*\Z"],
    "version": [r'^boot loader: GRUB', r"^command line: reserve=4M$", r"^ticks since entry: \d+"],
    "check": [r"^All \d+ hold\.$"],
    "audit": [r"^All \d+ rules hold\.$"],
    "oracle 300": [r"^The CPU agrees with all 900 predictions \(seed 1\)\.$"],
    "layout": [r"^ +0x0 .* firmware", r"guest memory +g2 paging$", r"^runs: \d+"],
    "frames": [r"guest memory", r"g2 paging"],
    "who kernel_text-0xffffffff80000000": [r"^purpose: image", r"^mappings: \d"],
    "explain g2 gpa 0x7c00 r": [r"^verdict: allowed"],
    "peek g2 gpa 510+0x7c00 2": [r"0xaa55"],
    "dump g2 gpa 0x7c00 32": [r"0x7c00"],
    "find g2 gpa 0x7c00 512 0x1122334455667788": [r"^found: 1"],
    "digest g3": [r"^ +0x0 +640K +lazy RAM +\S+ +0x\w+$", r"^digest: 0x\w+$"],
    "stress 2M": [r"^The allocator is as it was before"],
    "bench 1": [r"^  EPT: translate ", r"^a tick is an instruction: yes$"],
    "trace": [r"trac"],
    "colour": [r"^colour is off$"],
    "print kernel_text+0x40": [r"^value: 0xffffffff80200040$", r"^symbol: \w+"],
    "print 2*(1 + 16K)": [r"^decimal: 32770$"],
    "info mem": [r"^here it is `map host`$", r" image$"],
    "x/8gx kernel_text": [r"^here it is `dump hva kernel_text 64`$"],
    "columns": [r"^answers are at most 1000 columns wide$"],
    "paging": [r"^long answers do not stop$"],
    "mem; version": [r"^memory map$", r"^command line: "],
    "  guests  ": [r"^  g1 +hello"],
}

# Mistakes: a command, and a part of the one line that says what is wrong.
WRONG = {
    "slot g2 move": "is nothing to do with a slot: add, remove and protect are",
    "slot g2 add ram 0 4K": "overlaps RAM at 0x0",
    "heat g1": "heat: g1 hello has passed: only a guest that runs reaches anything",
    "heat g3": "only a guest that runs reaches anything",
    "merge now": "too many arguments",
    "frobnicate": '"frobnicate" is no command; `help` lists them all',
    "gusets": "did you mean `guests`?",
    "HELP": "did you mean `help`?",
    "help frobnicate": "is no command",
    "mem all": "mem: too many arguments; usage: mem",
    "map": "map: arguments are missing; usage: map host|user|gN",
    "map elsewhere": "map: ",
    "cpus all": "cpus: \"all\": it is `cpus`, or `cpus trial [CHANGES]`",
    "top all": "top: too many arguments",
    "map g9": "map: there is no g9: the guests are g1 to g4",
    "walk": "walk: arguments are missing",
    "walk host": "walk: an argument is missing",
    "walk host nowhere": "walk: ",
    "walk host 0": "walk: 0x0 is no address of the kernel table",
    "walk host 0x800000000000": "walk: 0x800000000000 is no address of the kernel table",
    "walk host 0x99999999999999999": "walk: ",
    "walk g2 hpa 0": '"hpa" is no kind of address',
    "walk g2 gpa": "walk: which gpa?",
    "walk g2 gpa 0xffffffffffffffff": "is no address of the",
    "walk g2 gva 0x800000000000": "canonical",
    "walk g2 gpa 1 2": "too many arguments",
    "regs g1": "regs: g1 hello has no virtual CPU (passed)",
    "regs g4": "regs: g4 broken has no virtual CPU (refused)",
    "regs": "regs: arguments are missing",
    "bt g1": "bt: g1 hello has no virtual CPU (passed)",
    "bt cpu9": "bt: there is no CPU 9: this machine has CPU 0 alone",
    "bt cpux": '"cpux" is no CPU: one of the machine\'s is cpu and its number, such as cpu0',
    "print g1 nowhere": "no symbol of g1 hello has this name",
    "walk g2 gva start": "g2 paging has no symbols",
    "exits gx": "exits: ",
    "pause g1": "pause: g1 hello has passed: only a guest that runs can be paused",
    "pause g3": "pause: g3 waiting is paused",
    "resume g2": "resume: g2 paging is running: only a paused guest can be resumed",
    "resume g1": "`start` runs an ended one again",
    "start g2": "start: g2 paging is running already",
    "start g3 soon": '"soon" is nothing to start a guest with',
    "kill g1": "kill: g1 hello has ended already (passed)",
    "kill": "kill: arguments are missing",
    "root g1": "root: g1 hello has no virtual CPU",
    "devices": "devices: arguments are missing; usage: devices gN",
    "devices g1": "devices: g1 hello has passed, and its devices are gone with it",
    "screen g2": "screen: g2 paging has no screen: guests with the option `pc` have one",
    "screen g3 green": '"green"? only `colour` may follow',
    "type g3": "type: an argument is missing",
    "type g3 a\\q": "behind a backslash there may be n, e, t, b",
    "type g1 x": "type: g1 hello has passed: nobody is at its keyboard",
    "log many": "log: ",
    "log 0": "log: ",
    "quit now": "quit: too many arguments",
    "check it": "check: too many arguments",
    "audit it": "audit: ",
    "oracle of delphi": "oracle: ",
    "layout now": "layout: too many arguments",
    "frames 1 2 3 4 5 6": "frames: too many arguments",
    "who": "who: arguments are missing",
    "who anybody": "who: ",
    "explain g2": "explain: ",
    "peek g2": "peek: ",
    "poke g2": "poke: ",
    "dump nowhere": "dump: ",
    "find nothing": "find: ",
    "stress 1": "stress: 1? give a size from 4K to 64G",
    "digest": "digest: arguments are missing; usage: digest gN",
    "digest g4": "digest: g4 broken was refused and never had a table",
    "bench 0": "bench: 0 rounds? from 1 to 99",
    "colour blue": '"blue"? it is on or off',
    "print": "print: arguments are missing",
    "print nosuch": "no symbol of the hypervisor has this name",
    "exit": "`quit` switches the machine off",
    "columns 20": "columns: 20 columns? from 40 to 1000",
    "paging 1": "paging: 1 rows? a screen has 4 to 1000",
    "dirty": "dirty: arguments are missing",
    "snapshot": "snapshot: arguments are missing",
    "reset": "reset: arguments are missing",
    "fork": "fork: arguments are missing",
    "quota": "quota: arguments are missing",
    "quota g2 1K": "1K is less than the 48K that g2 paging holds for its structure and its vCPU",
    "map host page=3M": "page=3M: no page of such a table has this size: there are 4K, 2M, 1G",
    "map g2 what=nosuch": "what=nosuch: nothing is called so: there are RAM, lazy RAM, ROM, no-execute RAM, "
    "execute-only, video memory, device, shared RAM, outside every slot",
    "map g2 gva page=4M": "there are 4K, 2M, 1G",
    "trace show 0": "0 events? give a number from 1",
    "slot g2 add ram 1G 0": "a slot of 0 bytes at 0x40000000?",
    "slot g2 remove 0x1000": "0x1000 lies in the slot at 0x0+",
    "fuzz g2 input=0x1000:4 ticks=0": "ticks=0: it is from 1 to 256T",
    "fuzz g2 input=0x1000:4 rounds=0": "rounds=0: give a number from 1",
    "heat g2 samples=0": "samples=0: there can be 1 to 16",
    "heat g2 ticks=0": "ticks=0: it is from 1 to 256T",
    "xp/4gx g2": "dump: an argument is missing",
    "x/0gx 0x1000": "a count of 0 shows nothing",
    "save": "save: arguments are missing; usage: save gN",
    "save g4": "save: g4 broken cannot be saved",
    "cost": "cost: arguments are missing; usage: cost gN",
    "fuzz": "fuzz: arguments are missing",
    "attach g1": "attach: g1 hello has passed: nobody is at its serial port",
    "wait here": "wait: too many arguments",
    "trace everything": "trace: ",
    "g1": "is no command",
    "x" * 300: "nothing was run",
    "\x7f\x01\x02;;;": None,
}


# What is another thing to say with AMD-V; of `oracle` QEMU's one deviation, which tests/emulator/test_oracle.py knows.
RIGHT_BY_SVM = {
    "root g2": [r"^raw: 0x\w+000$", r"^levels: 4", r"^memory type: WB", r"translates by the table of g2"],
    "cpu": [r"^vendor: AuthenticAMD", r"^  NX +yes +yes", r"^  SVM +yes +yes", r"^guests run by: SVM$"],
    "oracle 300": [r"^  guest +6 +300 .* 0$", r"of 900 predictions \(seed 1\)$"],
    "exits g2": [r"^  interrupt +\d+", r"^most frames held: \d+"],  # the host's timer ends slices
    "bench 1": [r"^  NPT: translate ", r"^a tick is an instruction: no$"],
}


@pytest.mark.parametrize("command", RIGHT)
def test_right(machine, vendor, command):
    lines = machine.command(command)
    text = "\n".join(lines)
    for pattern in (RIGHT_BY_SVM if vendor == "svm" else {}).get(command, RIGHT[command]):
        assert re.search(pattern, text, re.M), f"no {pattern!r} in\n{text}"
    deviates = vendor == "svm" and command.startswith("oracle")
    assert deviates or not any(line.startswith("error: ") for line in lines), text


@pytest.mark.parametrize("command", [each for each in WRONG if WRONG[each] and len(each) < 200])
def test_wrong(machine, command):
    before = rows(machine.command("guests"), "guest")
    errors = [line for line in machine.command(command) if line.startswith("error: ")]
    assert len(errors) == 1, errors
    assert WRONG[command] in errors[0]
    after = rows(machine.command("guests"), "guest")
    for row in before + after:
        del row["exits"]
    assert before == after


def test_every_command_is_asked_rightly_and_wrongly(machine):
    """A command that is added to the console is added here."""
    commands = {row["command"] for row in machine.ask("help").records("command")}
    # Of `quit` and of those that change a guest, the right use is a test of its own below.
    right = {each.split()[0] for each in RIGHT}
    right |= {"start", "pause", "resume", "kill", "regs", "quit", "poke"}
    right |= {"attach", "wait"}  # tests/emulator/test_comfort.py
    right |= {"dirty", "snapshot", "reset", "fork", "quota", "fuzz"}  # test_dirty.py, test_copies.py, test_fuzz.py
    right |= {"save", "cost"}  # test_saved.py, tests/bench/memory.py
    right |= {"slot", "heat", "merge"}  # test_slots.py, test_dirty.py, test_copies.py
    wrong = {each.split()[0] for each in WRONG if each.split()}
    assert commands - right == set()
    assert commands - wrong - {"guests", "cpu", "version", "report", "output"} == set()


def test_commands_that_take_nothing_or_one_guest_say_so(machine):
    for command in ("guests", "cpu", "version"):
        assert machine.command(f"{command} please")[0].startswith(f"error: {command}: too many arg")
    of_a_guest = "report output exits root regs bt devices start resume kill pause"
    for command in of_a_guest.split():
        assert machine.command(f"{command} g77") == [
            f"error: {command}: there is no g77: the guests are g1 to g4"
        ]


def test_each_example_in_help_works(machine):
    changing = ("start", "pause", "resume", "kill", "quit", "poke", "wait", "colour", "columns")
    for row in machine.ask("help").records("command"):
        example = machine.command(f"help {row['command']}")[-1].removeprefix("example: ")
        assert example.split()[0] == row["command"]
        if row["command"] not in changing:
            lines = machine.command(example)
            assert not any("usage: " in line or "is no command" in line for line in lines), lines


def test_pause_regs_walk_resume(machine):
    assert machine.command("pause g2") == ["g2 paging: paused"]
    try:
        count = rows(machine.command("exits g2"), "exit")
        lines = machine.command("regs g2")
        assert facts(lines)["mode"] == "long, 64-bit"
        values = {}
        for heading in ("rip", "rax", "rsi", "r8", "r12", "cr0"):
            values |= rows(lines, heading)[0]
        assert values["rax"] == "0x1122334455667788"
        assert values["r8"] == "0x8888888888888888"
        assert values["r15"] == "0xf0f0f0f0f0f0f0f"
        assert values["rsp"] == "0xffff800000007c00"
        assert values["cr3"] == "0x10000"
        assert 0x7C00 <= int(values["rip"], 16) < 0x7E00
        assert rows(machine.command("exits g2"), "exit") == count, "a paused guest runs"
    finally:
        assert machine.command("resume g2") == ["g2 paging: running"]


@pytest.mark.parametrize("half", [0, 0xFFFF800000000000])
@pytest.mark.parametrize(
    "gva, gpa, rights",
    [(0x7C00, 0x7C00, "rwx--"), (0x200123, 0x7123, "r-x--"), (0x201FFF, 0x8FFF, "rw---")],
)
def test_a_guests_own_tables_are_walked(machine, vendor, half, gva, gpa, rights):
    lines = machine.command(f"walk g2 gva {half + gva:#x}")
    split = lines.index(next(line for line in lines if line.startswith(TABLES[vendor])))
    own, second = facts(lines[:split]), facts(lines[split:])
    assert (own["verdict"], own["gva"], own["gpa"]) == ("mapped", f"{half + gva:#x}", f"{gpa:#x}")
    assert own["rights"] == rights
    assert (second["verdict"], second["gpa"]) == ("mapped", f"{gpa:#x}")
    # The second level's frame is what the host's own walk of the direct map finds there.
    host = facts(machine.command(f"walk host {0xFFFF800000000000 + int(second['hpa'], 16):#x}"))
    assert host["hpa"] == second["hpa"]


def test_where_a_guests_own_tables_end(machine, vendor):
    absent = facts(machine.command("walk g2 gva 0x203000"))
    assert (absent["verdict"], absent["decided at"]) == ("not mapped", "PT entry 3")
    lines = machine.command("walk g2 gva 0x202000")
    split = lines.index(next(line for line in lines if line.startswith(TABLES[vendor])))
    assert facts(lines[:split])["gpa"] == "0x40000000"
    assert facts(lines[split:])["verdict"] == "not mapped"


def test_start_and_kill(machine):
    held = rows(machine.command("guests"), "guest")[0]["frames"]
    assert held == "0"
    assert "g1 hello: paused" in machine.command("start g1 paused")
    row = rows(machine.command("guests"), "guest")[0]
    assert row["state"] == "paused"
    assert int(row["frames"]) > 900
    assert facts(machine.command("regs g1"))["mode"] == "protected, 32-bit"
    assert "verdict: mapped" in machine.command("walk g1 gpa 0x100000")
    assert "g1 hello: killed" in machine.command("kill g1")
    assert rows(machine.command("guests"), "guest")[0]["frames"] == "0"
    machine.command("start g1")
    machine.expect("g1 hello: passed")
    machine.wait_prompt()


def test_editing_and_history(machine):
    machine.wait_prompt()
    machine.send("gests\x1b[D\x1b[D\x1b[D\x1b[Du\x1b[F")  # a letter put in where it is missing
    machine.wait_for(lambda: machine.screen.current == "quire> guests", "the mended line")
    machine.send("\r")
    machine.wait_prompt()
    machine.send("\x1b[A")
    machine.wait_for(lambda: machine.screen.current == "quire> guests", "the line before")
    machine.send("\x15")  # ^U
    machine.wait_for(lambda: machine.screen.current == "quire> ", "an empty line")
    machine.send("half a line\x03")
    machine.wait_for(lambda: machine.lines[-1].endswith("half a line^C"), "the line given up")
    machine.wait_prompt()


def test_noise_does_no_harm(machine):
    machine.wait_prompt()
    machine.send(bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r")
    machine.send(b"\x1b[999999999999999;1;1;1A\x1b[\x1b[\x1bO\x1b" + b"\xff" * 600 + b"\r")
    machine.send(b"\x15\r")
    machine.wait_prompt()
    line = machine.command("x" * 254)
    assert any("is no command" in each for each in line)
    machine.send("y" * 300 + "\r")
    machine.expect("error: a line longer than 255 characters: nothing was run")
    machine.wait_prompt()
    assert machine.command("check")[-1].endswith("hold.")


def test_a_guests_output_goes_around_what_is_being_typed(boot):
    machine = boot(modules=[(assemble("chatty.asm"), "chatty mem=1M paused")])
    machine.wait_prompt()
    machine.command("resume g1")
    machine.send("gue")
    machine.expect(r"\[g1 chatty\] still here")
    machine.wait_for(lambda: machine.screen.current == "quire> gue", "the line being typed")
    machine.send("sts\r")
    machine.expect(r"^  g1 +chatty +running")
    quit_machine(machine)
