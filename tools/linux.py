#!/usr/bin/env python3
"""Makes an image on which Debian's Linux, unmodified, is a guest: its kernel, and a busybox to talk to.

usage: linux.py [--elf build/quire.elf] [--memory 128M] [--words "..."] [--cpus N] [--pvh | --entry linux16] -o build/linux.iso

The packages are fetched once and unpacked under build/linux/; nothing is installed. The kernel's console is
the guest's serial port: `attach g1` at Quire's prompt. With the word `once` the guest says what it found and
resets itself. --pvh starts what is packed into the kernel's file, the ELF file vmlinux, at its PVH entry; --entry
linux16 the kernel's file at its 16-bit entry, from which it asks a BIOS about the machine.
"""

import argparse
import glob
import os
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from quire_machine.debian import Debian, DebianError  # noqa: E402
from quire_machine.initramfs import Archive  # noqa: E402

BUILD = os.path.join(os.path.dirname(HERE), "build")
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
echo "busybox on Linux $(uname -r), $(grep MemTotal /proc/meminfo | tr -s ' ')"
case " $(cat /proc/cmdline) " in
*" once "*)
    ticks() { awk '/ timer$|Local timer/ {n += $2} END {print n}' /proc/interrupts; }
    before=$(ticks)
    dd if=/dev/urandom of=/big bs=1M count=8 2>/dev/null
    usleep 100000
    echo "timer: $(($(ticks) - before)) interrupts"
    dmesg | grep "Brought up"
    echo "digest: $(md5sum < /big) $(md5sum < /big)"
    reboot -f ;;
esac
exec setsid cttyhack sh
"""


def packages(folder):
    """Where kernel and busybox lie, unpacked."""
    debian = Debian(folder)
    with debian.alone():
        if not glob.glob(f"{debian.root}/boot/vmlinuz-*"):
            print("linux: fetching Debian's kernel and busybox, once", file=sys.stderr, flush=True)
            debian.fetch(["busybox-static"], "linux-image-cloud-amd64")
    return debian.root


def kernel_of(root):
    """The kernel's file, among those packages."""
    return glob.glob(f"{root}/boot/vmlinuz-*")[0]


def initramfs(root, init=INIT):
    archive = Archive()
    for folder in ("proc", "sys", "dev", "tmp"):
        archive.folder(folder)
    archive.console()
    busybox = next(path for path in (f"{root}/bin/busybox", f"{root}/usr/bin/busybox") if os.path.exists(path))
    archive.file("bin/busybox", busybox)
    archive.content("init", init.encode())
    return archive.bytes()


def vmlinux(kernel):
    """The ELF file that is packed into a bzImage; see "payload_offset" in the Linux/x86 boot protocol."""
    with open(kernel, "rb") as file:
        image = file.read()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    packed = image[start : start + length - 4]  # behind it, how long it is unpacked
    tools = {b"\x02!L\x18": "lz4", b"\xfd7zX": "xz", b"(\xb5/\xfd": "zstd", b"\x1f\x8b\x08\x00": "gzip"}
    if packed[:4] not in tools:
        sys.exit(f"linux: {kernel} is packed in a way that this tool does not know")
    command = [tools[packed[:4]], "-d", "-c"]
    return subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True).stdout


def build(output, elf, memory="128M", words="", folder=None, pvh=False, entry=None, cpus=1):
    """Makes the image; returns the kernel's file. `entry`: an option's value, as linux16."""
    root = packages(folder or os.path.join(BUILD, "linux"))
    kernel = kernel_of(root)
    initrd = f"{output}.initrd"
    with open(initrd, "wb") as file:
        file.write(initramfs(root))
    image = f"{output}.vmlinux" if pvh else kernel
    if pvh:
        with open(image, "wb") as file:
            file.write(vmlinux(kernel))
    fate = " expect=stopped" if "once" in words.split() else ""  # `poweroff` in its shell ends it well
    if cpus != 1:  # else it may distrust its TSCs, which agree, and read the HPET, which each read exits for
        words = f"tsc=reliable {words}"
    how = (f" entry={entry}" if entry else "") + (f" cpus={cpus}" if cpus != 1 else "")
    modules = [
        f"{image}:linux mem={memory}{how} mods=1{fate} -- console=ttyS0 quiet {words}".rstrip(),
        f"{initrd}:initrd",
    ]
    options = [word for module in modules for word in ("--module", module)]
    subprocess.run([sys.executable, f"{HERE}/image.py", "build", "--elf", elf, *options, "-o", output], check=True)
    os.remove(initrd)
    if pvh:
        os.remove(image)
    return kernel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--elf", default=os.path.join(BUILD, "quire.elf"), help="the hypervisor")
    parser.add_argument("--memory", default="128M", help="of the guest")
    parser.add_argument("--words", default="", help="more words for the kernel's command line")
    parser.add_argument("--cpus", type=int, default=1, help="of the guest")
    parser.add_argument("--pvh", action="store_true", help="unpack the kernel, and start it by PVH")
    parser.add_argument("--entry", choices=["linux16"], help="start the kernel otherwise than at its 32-bit entry")
    options = parser.parse_args()
    if options.pvh and options.entry:
        parser.error("--pvh and --entry are two ways to start a kernel")
    try:
        build(options.output, options.elf, options.memory, options.words, pvh=options.pvh, entry=options.entry, cpus=options.cpus)
    except (DebianError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"linux: {error}")


if __name__ == "__main__":
    main()
