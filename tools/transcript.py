#!/usr/bin/python3
"""Writes a session at the console into a page: between the two marks in README.md, and whole into
docs/transcript.txt.

    tools/transcript.py build/quire.iso

What is asked is listed here; what is answered comes from a machine that is booted for it.
"""

import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

from quire_machine import Machine, MachineError, engines  # noqa: E402
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
    "kill g1; check",
]

WHOLE_COMMANDS = [
    *["help", "version", "mem", "frames", "guests", "map host", "walk host kernel_text+0x40"],
    *README_COMMANDS[1:5],
    *["walk g1 gpa 0x101000", "regs g1", "eptp g1", "dump g1 gpa 0x100000 64", "kill g1"],
    *["report {stopped}", "output g3", "map g2 --json", "audit", "stress 16M 7", "bench 3", "check"],
]

LONGEST_LINE = 140  # of the README: what is wider is cut there, and ends in "..."


def session(machine, commands):
    """The lines of a session: each command behind its prompt, and its answer."""
    lines = []
    for command in commands:
        if "{frame}" in command:
            command = command.format(frame=machine.ask("map g1").records("run")[0]["to"])
        elif "{stopped}" in command:
            guests = machine.ask("guests").records("guest")
            command = command.format(stopped=[g["guest"] for g in guests if g["state"] == "stopped"][0])
        lines.append(PROMPT + command)
        lines += [line for line in machine.command(command) if line]
    return lines


def cut(line):
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."


def put_between_marks(text, lines):
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"README.md lacks the marks {BEGIN} and {END}")
    return before + BEGIN + "\n```\n" + "\n".join(map(cut, lines)) + "\n```\n" + END + after


def main():
    setting = os.environ.get
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("iso", help="the bootable image of the demonstration")
    parser.add_argument("--engine", default=setting("ENGINE") or "auto")
    parser.add_argument("--readme", default=os.path.join(ROOT, "README.md"))
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
    except (MachineError, engines.EngineError, ValueError, OSError, IndexError) as error:
        print(f"transcript: {error}", file=sys.stderr)
        return 1
    with open(options.readme, "w", encoding="utf-8") as readme:
        readme.write(page)
    with open(options.output, "w", encoding="utf-8") as out:
        out.write("\n".join(whole) + "\n")
    print(f"transcript: {options.readme}, {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
