"""A machine that runs Quire: choosing an emulator, starting it, and talking to its serial port.

Standard library only. The launcher (tools/launch.py) and the whole-machine tests both stand on it:

    with Machine(engines.Bochs(cpu="corei7_skylake_x"), "build/quire.iso") as machine:
        machine.wait_prompt()
        print(machine.command("guests"))
"""

from quire_machine.machine import Machine, MachineError

__all__ = ["Machine", "MachineError"]
