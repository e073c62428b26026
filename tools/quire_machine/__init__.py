"""A machine that runs Quire: choosing an emulator, starting it or connecting to one, and asking its
console questions.

Standard library only. The launcher, `tools/quire` and the whole-machine tests stand on it:

    with Machine(engines.Bochs(cpu="corei7_skylake_x"), "build/quire.iso") as machine:
        machine.wait_prompt()
        for run in machine.ask("map g1").records("run"):
            print(run["first"], run["size"], run["rights"])

    with connect("unix:build/quire.sock") as console:
        print(console.ask("guests").records("guest"))
"""

from quire_machine.answers import Answer, address
from quire_machine.boot import boot
from quire_machine.console import Console, MachineError, connect
from quire_machine.machine import Machine

__all__ = ["Answer", "Console", "Machine", "MachineError", "address", "boot", "connect"]
