"""What the whole-machine tests stand on: images made to measure, and machines that always end.

A test asks for a machine by `boot`, which returns it running:

    machine = boot(modules=[(guest("hello.elf"), "hello mem=16M")])
    machine.expect("g1 hello: passed")
"""

import pytest

import image
from machines import demo_modules
from quire_machine import Machine
from quire_machine.engines import Bochs
from support import DEMO_ISO, QUIRE_ELF


@pytest.fixture(scope="session")
def make_iso(tmp_path_factory):
    """Makes an image of modules given as (file or bytes, command line); the same one only once."""
    folder = tmp_path_factory.mktemp("images")
    made = {}

    def make(modules=(), cmdline=""):
        key = (tuple(modules), cmdline)
        if key not in made:
            path = folder / f"{len(made)}.iso"
            files = []
            for index, (content, words) in enumerate(modules):
                if isinstance(content, bytes):
                    source = folder / f"{len(made)}-{index}.bin"
                    source.write_bytes(content)
                    content = str(source)
                files.append((content, words))
            image.build_image(str(path), QUIRE_ELF, cmdline, files)
            made[key] = str(path)
        return made[key]

    return make


class Booter:
    def __init__(self, make_iso):
        self.make_iso = make_iso
        self.machines = []

    def __call__(self, modules=None, cmdline="", cpu=None, memory=None, engine=None, cpus=1):
        """Boots the demonstration, or the modules given, in Bochs unless told otherwise."""
        if modules is None and not cmdline:
            iso = DEMO_ISO
        else:
            iso = self.make_iso(demo_modules() if modules is None else modules, cmdline)
        machine = Machine(engine or Bochs(cpu, memory, cpus), iso)
        self.machines.append(machine)
        return machine

    def end(self):
        for machine in self.machines:
            machine.stop()


@pytest.fixture
def boot(make_iso):
    booter = Booter(make_iso)
    yield booter
    booter.end()


@pytest.fixture(scope="module")
def boot_for_module(make_iso):
    """As `boot`, for a machine that all tests of a file share."""
    booter = Booter(make_iso)
    yield booter
    booter.end()
