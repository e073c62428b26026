"""`make run ENGINE=nested`: Quire in QEMU in Linux in Bochs (linux_host.py), as one machine. It says what
comes up, and how long that took.
"""

import sys
import threading
import time

from quire_machine.console import MachineError
from quire_machine.debian import DebianError
from quire_machine.linux_host import LAYER_SECONDS, LinuxHost, NestedQuire
from quire_machine.nested_stack import Stack

# What Linux and QEMU take beside Quire's memory, and what is set aside for that at most: it is given
# when touched. In MiB.
HOST_MEMORY = 448
QUIRE_MEMORY = 1024


class Layers:
    """Tells what is coming up: on a terminal with the seconds so far, elsewhere when it starts."""

    def __init__(self, note):
        self._note = note
        self._live = sys.stdout.isatty()

    def up(self, what, come):
        """Calls come(), which returns when the layer is there. MachineError names the layer."""
        start = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(what, start, done), daemon=True)
        if self._live:
            ticker.start()
        else:
            self._note(f"{what}: starting")
        try:
            result = come()
        except (MachineError, DebianError) as error:
            raise MachineError(f"{what}: did not come up: {error}") from error
        finally:
            done.set()
            if self._live:
                ticker.join()
        self._note(f"{what}: up after {time.monotonic() - start:.1f} s")
        return result

    @staticmethod
    def _tick(what, start, done):
        while not done.wait(0.2):
            sys.stdout.write(f"\r\033[Klauncher: {what}: {time.monotonic() - start:.0f} s ")
            sys.stdout.flush()
        sys.stdout.write("\r\033[K")
        sys.stdout.flush()


class NestedMachine(NestedQuire):
    """A LinuxHost that runs one Quire, and ends with it."""

    def __init__(self, engine, iso, note):
        self.engine = engine
        self._note = note
        layers = Layers(note)
        stack = Stack(engine.suite)
        if not stack.is_there():
            layers.up(f"Debian's packages, once, into {stack.folder}", stack.make)
        versions = stack.versions()
        note(f"Linux {versions[stack.kernel_package()]}, QEMU {versions['qemu-system-x86']}")
        memory = HOST_MEMORY + min(engine.memory, QUIRE_MEMORY)
        host = LinuxHost({"quire.iso": iso}, memory, stack)
        try:
            layers.up("Bochs, its firmware and GRUB", lambda: host.come("host: grub"))
            layers.up("Linux in Bochs", lambda: host.come("host: linux"))
            layers.up("KVM in Linux", lambda: host.tell("kvm"))
            super().__init__(host)
            layers.up("QEMU with KVM, its firmware and GRUB", lambda: self._come(engine))
        except BaseException:
            host.stop()
            raise
        self._since = time.monotonic()

    def _come(self, engine):
        self.start("quire.iso", engine.memory, engine.cpu)
        self.wait_for(lambda: self.screen.lines, "a line of Quire", LAYER_SECONDS)

    def stop(self):
        if self._since:
            seconds = time.monotonic() - self._since
            self._note(f"Quire: {seconds:.1f} s from its first line to its end")
            self._since = None
        self.host.stop()
        super().stop()
