"""What the measurements in the emulator share: a guest that prints what things cost it (cost.inc) in Bochs,
whose TSC counts instructions."""

import contextlib
import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "emulator")]

import image  # noqa: E402
from machines import assemble  # noqa: E402
from quire_machine.engines import Bochs  # noqa: E402
from quire_machine.machine import Machine  # noqa: E402
from support import BUILD  # noqa: E402

ROW = re.compile(r"\[g1 \w+\] cost (.*): +(\d+) (\d+)$")


@contextlib.contextmanager
def machine_with(source, *options, memory=None, cpus=1):
    """A machine in Bochs that runs the guest made of tests/bench/SOURCE.asm, once for each `options`."""
    with tempfile.TemporaryDirectory() as folder:
        guest, iso = os.path.join(folder, "guest.bin"), os.path.join(folder, "guest.iso")
        with open(guest, "wb") as made:
            made.write(assemble(f"../../bench/{source}.asm", ["-I", HERE + "/"]))
        guests = [(guest, f"{source} {words}") for words in options]
        image.build_image(iso, os.path.join(BUILD, "quire.elf"), "", guests)
        machine = Machine(Bochs(memory=memory, cpus=cpus), iso)
        try:
            yield machine
        finally:
            machine.stop()


def costs(machine):
    """[(what, lowest, mean)] as the guest has printed them."""
    found = [ROW.match(line) for line in machine.lines]
    return [(row[1], int(row[2]), int(row[3])) for row in found if row]
