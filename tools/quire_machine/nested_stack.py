"""Linux, KVM and QEMU from Debian's packages, unpacked under build/nested/ (debian.py) and put together
once: a kernel, and an initial memory file system with nothing else in it than busybox, KVM's modules
and QEMU.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

from quire_machine.debian import Debian, DebianError
from quire_machine.initramfs import Archive, add_program

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "nested")
PACKAGES = ("qemu-system-x86", "seabios", "busybox-static")
KERNEL = "linux-image-cloud-amd64"
QEMU = "usr/bin/qemu-system-x86_64"
FIRMWARE = ("seabios/bios-256k.bin", "qemu/kvmvapic.bin")
MODULES = ("irqbypass", "kvm", "kvm-intel")

class Stack:
    """Linux, KVM and QEMU from Debian's packages, put together once under `folder`."""

    def __init__(self, suite=None, cache=CACHE):
        self.suite = suite
        self.folder = os.path.join(cache, suite or "system")
        self.kernel = os.path.join(self.folder, "linux")
        self.files = os.path.join(self.folder, "host.lz4")
        self._versions = os.path.join(self.folder, "versions.json")
        self._init = os.path.join(HERE, "nested_init.sh")

    def is_there(self):
        """True when it need not be put together again."""
        if not all(os.path.exists(each) for each in (self.kernel, self.files, self._versions)):
            return False
        made = os.path.getmtime(self.files)
        names = ("nested_init.sh", "initramfs.py", "nested_stack.py")
        sources = [os.path.join(HERE, each) for each in names]
        return all(os.path.getmtime(each) <= made for each in sources)

    def versions(self):
        """The packages' versions: package -> version."""
        with open(self._versions, encoding="ascii") as file:
            return json.load(file)

    def kernel_package(self):
        return next(name for name in self.versions() if name.startswith("linux-image-"))

    def make(self):
        """Fetches and puts together what is missing. Raises DebianError with a sentence."""
        os.makedirs(self.folder, exist_ok=True)
        debian = Debian(self.folder, self.suite)
        if not os.path.exists(self._versions):
            versions = debian.fetch(PACKAGES, KERNEL)
            with open(self._versions, "w", encoding="ascii") as file:
                json.dump(versions, file, indent=1)
        try:
            self._assemble(debian.root)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DebianError(f"the packages could not be put together: {error}") from error

    def _assemble(self, root):
        shutil.copyfile(glob.glob(f"{root}/boot/vmlinuz-*")[0], self.kernel)
        archive = Archive()
        archive.console()
        archive.file("init", self._init)
        archive.file("bin/busybox", _first(root, "usr/bin/busybox", "bin/busybox"))
        add_program(archive, root, QEMU)
        for name in FIRMWARE:
            file = _first(root, f"usr/share/{name}", f"usr/share/qemu/{os.path.basename(name)}")
            archive.file(f"usr/share/{name}", file)
            archive.file(f"usr/share/qemu/{os.path.basename(name)}", file)
        with tempfile.TemporaryDirectory() as folder:
            for name in MODULES:
                archive.file(f"{name}.ko", _module(root, name, os.path.join(folder, name)))
            raw = os.path.join(folder, "host.cpio")
            with open(raw, "wb") as out:
                out.write(archive.bytes())
            # The old format of lz4 is the one that the kernel knows.
            subprocess.run(["lz4", "-q", "-l", "-9", "-f", raw, self.files + ".new"], check=True)
        os.replace(self.files + ".new", self.files)


def _first(root, *names):
    for name in names:
        if os.path.exists(os.path.join(root, name)):
            return os.path.join(root, name)
    raise OSError(f"{names[0]} is in none of the packages")


def _module(root, name, output):
    """A module of the kernel, without what only a debugger reads."""
    found = glob.glob(f"{root}/**/lib/modules/*/kernel/**/{name}.ko*", recursive=True)
    if not found:
        raise OSError(f"the kernel's package has no module {name}")
    source = found[0]
    if source.endswith(".xz"):
        with open(output + ".ko", "wb") as out:
            subprocess.run(["xz", "-dc", source], stdout=out, check=True)
        source = output + ".ko"
    subprocess.run(["strip", "-g", "-o", output, source], check=True)
    return output


def main():
    """Puts together what is missing."""
    stack = Stack(os.environ.get("SUITE") or None)
    if not stack.is_there():
        try:
            stack.make()
        except DebianError as error:
            sys.exit(f"nested: {error}")
