#!/usr/bin/env python3
"""What a flush on several CPUs costs, in instructions, on the CPU that sends it and on those that are asked: Bochs's
debugger names each instruction that any CPU executes while `cpus trial` changes a page, and those of the flush are
counted. Exits 1 when a CPU was asked that has not loaded the table.

    cpus.py [CPUS ...]
"""

import os
import re
import subprocess
import sys
import tempfile
from statistics import median_low

from costs import BUILD, Bochs, Machine, image

PATIENCE = 600
FLUSHES = 12
FLUSH, NMI, NMI_NEXT = "shootdown_flush", "trap_stub_2", "trap_stub_3"
READERS = ["read_kernel", "read_user"]  # arch/x86_64/oracle/trial.c: what others do while a page is changed
ALONE = "oracle_run"  # it changes pages as well, on one CPU
TRACED_NO_MORE = "Tracing disabled for CPU0"
LINE = re.compile(r"\((\d+)\)\.\[\d+\] \[0x\w+\] \w+:([0-9a-f]{16}) \(.*?\): (\w+)")


class Traced(Bochs):
    """With these commands for the debugger."""

    def __init__(self, cpus, script):
        super().__init__(cpus=cpus)
        self.script, self.folder = script, None

    def command(self, iso, tty, folder):
        command = super().command(iso, tty, folder)
        self.folder = folder
        with open(os.path.join(folder, "debugger"), "w", encoding="ascii") as out:
            out.write("\n".join([*self.script, "q", ""]))
        return command

    def instructions(self):
        """[[(CPU, address, name)]]: each instruction, in the order in which they were executed, of each trace."""
        traces = [[]]
        with open(os.path.join(self.folder, "emulator.log"), encoding="utf-8", errors="replace") as log:
            for line in log:
                if found := LINE.search(line):
                    traces[-1].append((int(found[1]), int(found[2], 16), found[3]))
                elif TRACED_NO_MORE in line:
                    traces.append([])
        return traces[:-1]


def addresses():
    named = subprocess.run(["nm", os.path.join(BUILD, "quire.elf")], capture_output=True, text=True, check=True)
    return {name: int(address, 16) for address, _, name in (line.split() for line in named.stdout.splitlines())}


def trace(cpus, script, command=None):
    """What `script` has the debugger trace, on a machine on which `command` is typed."""
    with tempfile.TemporaryDirectory() as folder:
        iso = os.path.join(folder, "bare.iso")
        image.build_image(iso, os.path.join(BUILD, "quire.elf"), "", [])
        engine = Traced(cpus, script)
        machine = Machine(engine, iso)
        try:
            if command:
                machine.wait_prompt(PATIENCE)
                machine.send(command)
            machine.wait_end(PATIENCE)
            return engine.instructions()
        finally:
            machine.stop()


def split(instructions, start):
    """[[instruction]] from each time that CPU 0 is at `start` to the next."""
    parts = []
    for each in instructions:
        if each[:2] == (0, start):
            parts.append([])
        if parts:
            parts[-1].append(each)
    return parts[:-1]


def of_sender(part):
    """What CPU 0 executes until it returns from the function that `part` begins with: names of instructions."""
    depth, names = 0, []
    for cpu, _, name in part:
        if cpu != 0:
            continue
        names.append(name)
        depth += {"call": 1, "ret": -1}.get(name, 0)
        if depth < 0:
            break
    return names


def without_waiting(names):
    """(instructions without the loop that waits for answers, in that loop): each round of it has a PAUSE."""
    pauses = [i for i, name in enumerate(names) if name == "pause"]
    waiting = len(pauses) * min((b - a for a, b in zip(pauses, pauses[1:])), default=0)
    return len(names) - waiting, waiting


def of_receivers(part, handler):
    """{CPU: instructions} from the NMI to its end. `handler`: the addresses that it begins at; of the first
    instruction there Bochs says nothing."""
    counts, inside = {}, set()
    for cpu, address, name in part:
        if address in handler and cpu not in inside:
            inside.add(cpu)
            counts[cpu] = counts.get(cpu, 0) + (address != handler.start)
        counts[cpu] = counts.get(cpu, 0) + (cpu in inside)
        if name.startswith("iret"):
            inside.discard(cpu)
    return {cpu: count for cpu, count in counts.items() if count}


class Script(list):
    """Commands for the debugger."""

    points = 0

    def stop_at(self, place):
        """A CPU that begins its turn at a breakpoint passes it by: so there are two, the second behind PUSH RBP. Returns
        what takes them away."""
        self += [f"lb {place:#x}", f"lb {place + 1:#x}"]
        self.points += 2
        return [f"d {self.points - 1}", f"d {self.points}"]

    def trace(self, cpus, place, times):
        """What all CPUs do from now on until CPU 0 has come by `place` so often."""
        every = [f"set $cpu = {cpu}\ntrace on" for cpu in range(cpus)]
        away = self.stop_at(place)
        self += ["c", *every, *["c"] * (2 * times + 1), *(each.replace(" on", " off") for each in every), *away]


def show(table, cpus, parts, at):
    """A row; returns the numbers of the CPUs that were asked."""
    sent = [without_waiting(of_sender(part)) for part in parts]
    taken = [of_receivers(part, range(at[NMI], at[NMI_NEXT])) for part in parts]
    asked = sorted({cpu for each in taken for cpu in each})
    each = [count for counts in taken for count in counts.values()]
    receiver = f"{median_low(each)}" if each else "-"
    sender, waiting = (median_low(column) for column in zip(*sent))
    print(f"{table:44}{cpus:>6}{len(asked):>7}{sender:>9}{waiting:>9}{receiver:>10}")
    return asked


def measure(cpus, at):
    """One row or two. How many CPUs were asked that have not loaded the table."""
    script = Script()
    for place in [ALONE] if cpus == 1 else READERS:
        away = script.stop_at(at[place])
        script += ["c", *away]
        script.trace(cpus, at[FLUSH], FLUSHES)
    if cpus == 1:
        parts = split(trace(1, script, "oracle 1000\r")[0], at[FLUSH])
        show("a CPU alone", 1, [part for part in parts if of_sender(part).count("invlpg") == 1], at)
        return 0
    kernel, user = (split(found, at[FLUSH]) for found in trace(cpus, script, f"cpus trial {4 * FLUSHES}\r"))
    show("kernel's table, which all hold", cpus, kernel, at)
    asked = show("a program's, which half of them load", cpus, user, at)
    return sum(cpu > cpus // 2 for cpu in asked)


def main(wanted):
    at, disturbed = addresses(), 0
    print(f"{'flush of a page, in instructions':44}{'CPUs':>6}{'asked':>7}{'sender':>9}{'waits':>9}{'receiver':>10}")
    for cpus in wanted:
        disturbed += measure(cpus, at)
    print(f"CPUs asked that have not loaded the table: {disturbed}{'  MISSED' if disturbed else '  ok'}")
    return disturbed != 0


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or [1, 2, 4, 8]))
