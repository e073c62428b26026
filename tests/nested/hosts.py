"""Where Quire is booted under KVM: this machine's own, or one in a Linux in Bochs."""

import os

import image
import suite
from quire_machine import Machine
from quire_machine.engines import Kvm
from quire_machine.linux_host import LinuxHost
from quire_machine.nested_stack import Stack
from support import QUIRE_ELF

IMAGES = {
    "all": suite.all_modules,
    "spin": suite.spin_modules,
    "none": lambda: [],
}


def make_images(folder, images):
    """Name -> file, from name -> the function that makes its modules."""
    made = {}
    for name, modules in images.items():
        files = []
        for index, (content, words) in enumerate(modules()):
            if isinstance(content, bytes):
                source = folder / f"{name}-{index}"
                source.write_bytes(content)
                content = str(source)
            files.append((content, words))
        made[name] = str(folder / f"{name}.iso")
        # A byte of output costs more than anything else here: no report of 60 lines.
        image.build_image(made[name], QUIRE_ELF, "report=1", files)
    return made


class KvmWith(Kvm):
    """This machine's KVM, with options of QEMU."""

    def __init__(self, cpu, memory, options):
        super().__init__(cpu, memory)
        self.options = options

    def command(self, iso, tty, folder):
        return super().command(iso, tty, folder) + list(self.options)


class RealHost:
    def __init__(self, images):
        self.images = images

    def boot(self, name, memory, cpu, *options):
        return Machine(KvmWith(cpu, memory, options), self.images[name])

    def stop(self):
        pass


class NestedHost:
    """One boot of Linux, for several of Quire."""

    def __init__(self, images):
        stack = Stack(os.environ.get("SUITE") or None)
        if not stack.is_there():
            stack.make()
        self.linux = LinuxHost({f"{name}.iso": file for name, file in images.items()}, 800, stack)
        self.linux.come("host: linux")
        self.parameters = None

    def kvm(self, *parameters):
        """KVM with these parameters of kvm_intel."""
        if parameters != self.parameters:
            self.linux.tell(" ".join(["kvm", *parameters]))
            self.parameters = parameters

    def boot(self, name, memory, cpu, *options):
        return self.linux.boot(f"{name}.iso", memory, cpu, *options)

    def stop(self):
        self.linux.stop()
