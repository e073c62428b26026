#!/usr/bin/python3
"""Writes sessions at the console into pages: between the two marks in README.md, whole into
docs/transcript.txt, and each example of docs/MONITOR.md.

    tools/transcript.py build/quire.iso

What is asked is listed here, and in docs/MONITOR.md stands in the examples: code that begins with the
prompt. There a comment before it may say what is asked without being shown, and, where that changes
from one build to the next, what is asked:

    <!-- first: start g1 paused; pause g7 -->
    <!-- asks: who {g1 0x103000} -->             the frame behind this guest-physical address

An example with a line "..." keeps as many lines before and behind it as it had. What is answered comes
from machines that are booted for it: the demonstration, for docs/MONITOR.md with one guest more.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import image  # noqa: E402
from quire_machine import Machine, MachineError, engines  # noqa: E402
from quire_machine.commands import split  # noqa: E402
from quire_machine.console import PROMPT  # noqa: E402

BEGIN = "<!-- transcript: made by `make transcript` -->"
END = "<!-- end of transcript -->"

# {frame} is the host-physical address of the first guest's memory, {stopped} a guest that was stopped.
README_COMMANDS = [
    "guests",
    "start g1 paused",
    "map g1",
    "explain g1 gpa 0x7000 w",
    "who {frame}",
    *["snapshot g1", "dirty g1", "poke g1 gpa 0x203000 0x1234", "dirty g1", "reset g1", "fork g1"],
    "kill g1; kill g7; check",
]

WHOLE_COMMANDS = [
    *["help", "version", "mem", "frames", "guests", "map host", "walk host kernel_text+0x40"],
    *README_COMMANDS[1:5],
    *["walk g1 gpa 0x101000", "regs g1", "root g1", "dump g1 gpa 0x100000 64", "kill g1"],
    *["report {stopped}", "output g3", "map g2 --json", "audit", "stress 16M 7", "bench 3", "check"],
]

COLUMNS = 80  # what the console takes for granted
EXAMPLE = re.compile(
    r"((?:<!-- (?:first|asks): .* -->\n)*)```\n(" + re.escape(PROMPT) + r"(?:(?!```)[^\0])*?\n)```\n", re.M
)
DIRECTIVE = re.compile(r"<!-- (first|asks): (.*) -->\n")
FRAME = re.compile(r"\{(g\d+) (\w+)\}")
ELIDED = "..."
LONGEST_JSON = 100


def session(machine, commands):
    """The lines of a session: each command behind its prompt, and its answer."""
    lines = []
    machine.set_width(COLUMNS)
    for command in commands:
        if "{frame}" in command:
            command = command.format(frame=machine.ask("map g1").records("run")[0]["to"])
        elif "{stopped}" in command:
            guests = machine.ask("guests").records("guest")
            command = command.format(stopped=[g["guest"] for g in guests if g["state"] == "stopped"][0])
        lines.append(PROMPT + command)
        lines += [line for line in machine.command(command) if line]
    return lines


def guest_address(machine, match):
    """{g1 0x103000}: the host-physical address behind a guest-physical one."""
    return machine.ask(f"walk {match[1]} gpa {match[2]}").records("verdict")[-1]["hpa"]


def shortened(answer, before):
    """The answer, its middle left out where that of `before` was; JSON cut at the edge of the page."""
    answer = [
        line[: LONGEST_JSON - 3] + ELIDED if line.startswith("{") and len(line) > LONGEST_JSON else line
        for line in answer
    ]
    places = [index for index, line in enumerate(before) if line.strip() == ELIDED]
    if not places:
        return answer
    head, tail = places[0], len(before) - places[0] - 1
    if len(answer) <= head + tail:
        return answer
    middle = before[head]
    return answer[:head] + [middle] + (answer[-tail:] if tail else [])


def example(machine, directives, shown):
    """An example anew. `shown` is how it looks."""
    asked, answers = [], []
    for line in shown.splitlines():
        if line.startswith(PROMPT):
            asked.append(line[len(PROMPT) :])
            answers.append([])
        else:
            answers[-1].append(line)
    for kind, text in DIRECTIVE.findall(directives):
        commands = split(text)
        if kind == "first":
            for each in commands:
                machine.command(each)
        else:
            asked = commands
    lines = []
    for command, before in zip(asked, answers):
        command = FRAME.sub(lambda match: guest_address(machine, match), command)
        machine.set_width(COLUMNS)
        answer = [line for line in machine.command(command) if line]
        lines += [PROMPT + command, *shortened(answer, before)]
    return directives + "```\n" + "\n".join(lines) + "\n```\n"


def examples(machine, page):
    """A page with every example made anew, in its order."""
    return EXAMPLE.sub(lambda match: example(machine, match[1], match[2]), page)


def with_one_guest_more(iso, output):
    """The demonstration and g7, which sets up 4-level paging and stays there."""
    build = os.path.dirname(os.path.abspath(iso))
    with open(os.path.join(ROOT, "boot", "grub.cfg"), encoding="utf-8") as config:
        listed = [line.split(None, 2)[1:] for line in config if line.startswith("module2 ")]
    modules = [(os.path.join(build, path.lstrip("/")), words.strip()) for path, words in listed]
    made = os.path.join(os.path.dirname(output), "paging.bin")
    source = os.path.join(ROOT, "tests", "emulator", "guests", "paging.asm")
    folder = os.path.dirname(source) + "/"
    subprocess.run(["nasm", "-f", "bin", "-I", folder, "-o", made, source], check=True)
    index = next(i for i, (_, words) in enumerate(modules) if words.startswith("user:"))
    modules.insert(index, (made, "paging mem=2M paused"))
    image.build_image(output, os.path.join(build, "quire.elf"), "", modules)


def remake(engine, iso, page):
    """The text of docs/MONITOR.md with its examples anew."""
    with tempfile.TemporaryDirectory(prefix="quire-transcript-") as folder:
        made = os.path.join(folder, "monitor.iso")
        with_one_guest_more(iso, made)
        with Machine(engine, made) as machine:
            machine.expect("quire: guests: ")
            machine.wait_prompt()
            return examples(machine, page)


def put_between_marks(text, lines):
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"README.md lacks the marks {BEGIN} and {END}")
    return before + BEGIN + "\n```\n" + "\n".join(lines) + "\n```\n" + END + after


def main():
    setting = os.environ.get
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("iso", help="the bootable image of the demonstration")
    parser.add_argument("--engine", default=setting("ENGINE") or "bochs")
    parser.add_argument("--readme", default=os.path.join(ROOT, "README.md"))
    parser.add_argument("--monitor", default=os.path.join(ROOT, "docs", "MONITOR.md"))
    parser.add_argument("-o", "--output", default=os.path.join(ROOT, "docs", "transcript.txt"))
    options = parser.parse_args()
    try:
        engine, _ = engines.choose(options.engine)
        with Machine(engine, options.iso) as machine:
            machine.expect("quire: guests: ")
            machine.wait_prompt()
            short = session(machine, README_COMMANDS)
            whole = session(machine, WHOLE_COMMANDS)
        with open(options.readme, encoding="utf-8") as readme:
            page = put_between_marks(readme.read(), short)
        with open(options.monitor, encoding="utf-8") as monitor:
            reference = remake(engine, options.iso, monitor.read())
    except (MachineError, engines.EngineError, image.ImageError, ValueError, OSError, IndexError) as error:
        print(f"transcript: {error}", file=sys.stderr)
        return 1
    with open(options.readme, "w", encoding="utf-8") as readme:
        readme.write(page)
    with open(options.monitor, "w", encoding="utf-8") as monitor:
        monitor.write(reference)
    with open(options.output, "w", encoding="utf-8") as out:
        out.write("\n".join(whole) + "\n")
    print(f"transcript: {options.readme}, {options.monitor}, {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
