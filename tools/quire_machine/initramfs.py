"""What a Linux of our own starts from: an archive of files that the kernel unpacks into memory.

Written in the format that the kernel calls newc: for each file a header of hexadecimal numbers, its
name and its bytes, each of the last two filled up to a multiple of four.
"""

import os
import re
import stat
import subprocess

LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib")
LOADER = "lib64/ld-linux-x86-64.so.2"


class Archive:
    def __init__(self):
        self._parts = []
        self._folders = set()
        self._count = 0

    def _add(self, name, mode, content=b"", device=(0, 0)):
        self._count += 1
        path = name.encode() + b"\0"
        numbers = [self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0]
        header = b"070701" + b"".join(b"%08x" % number for number in numbers)
        self._parts += [_filled(header + path), _filled(content)]

    def folder(self, name):
        if name and name not in self._folders:
            self.folder(os.path.dirname(name))
            self._folders.add(name)
            self._add(name, stat.S_IFDIR | 0o755)

    def content(self, name, content, mode=0o755):
        self.folder(os.path.dirname(name))
        self._add(name, stat.S_IFREG | mode, content)

    def file(self, name, source):
        with open(source, "rb") as file:
            self.content(name, file.read())

    def console(self):
        """The device that the kernel opens for the first process."""
        self.folder("dev")
        self._add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))

    def bytes(self):
        self._add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _filled(data):
    return data + bytes(-len(data) % 4)


def _needed(path):
    said = subprocess.check_output(["readelf", "-d", path], text=True)
    return re.findall(r"\(NEEDED\).*\[(.*)\]", said)


def _find(root, name):
    for folder in LIBRARIES:
        path = os.path.join(root, folder, name)
        if os.path.exists(path):
            return path
    raise OSError(f"{name} is in none of the packages")


def libraries(root, program):
    """The shared libraries under `root` that `program` needs, itself or by others: name -> file."""
    found, left = {}, _needed(program)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = _find(root, name)
            left += _needed(found[name])
    return found


def add_program(archive, root, path):
    """A program of the packages under `root`, with its loader and its libraries."""
    source = os.path.join(root, path)
    archive.file(path, source)
    loader = os.path.join(root, LOADER)
    if not os.path.exists(loader):
        loader = _find(root, os.path.basename(LOADER))
    archive.file(LOADER, loader)
    for name, file in libraries(root, source).items():
        archive.file(f"lib/x86_64-linux-gnu/{name}", file)
