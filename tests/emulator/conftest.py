"""What the whole-machine tests stand on: images made to measure, and machines that always end.

A test asks for a machine by `boot`, which returns it running:

    machine = boot(modules=[(guest("hello.elf"), "hello mem=16M")])
    machine.expect("g1 hello: passed")
"""

import os

import pytest

import image
from machines import demo_modules
from quire_machine import Machine
from quire_machine.engines import Bochs, Qemu
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


# By whom guests are run: Intel's VMX with EPT, AMD's SVM with nested paging.
VENDORS = {"vmx": Bochs, "svm": Qemu}


MARKS = {
    "both_vendors": "on machines of both, by VMX and by SVM",
    "one_vendor(reason, vendor=None)": "on this vendor's machines alone, or on the engines that the test names",
    "no_guests(reason)": "it runs none",
}
MARKED = [name.partition("(")[0] for name in MARKS]


def pytest_configure(config):
    for name, what in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {what}")


def pytest_collection_modifyitems(config, items):
    """Each test here says by which vendor its guests run, and why if not by both. Several workers have the
    whole run end with a trace of theirs; tests/tools/test_marks.py names the test."""
    here = os.path.dirname(os.path.abspath(__file__))
    silent = sorted({
        item.nodeid.partition("[")[0] for item in items
        if os.path.dirname(item.path) == here and not any(item.get_closest_marker(name) for name in MARKED)
    })  # fmt: skip
    if silent and not hasattr(config, "workerinput"):
        raise pytest.UsageError(f"these tests have none of the marks {', '.join(MARKED)}: " + ", ".join(silent))


def pytest_generate_tests(metafunc):
    if "vendor" not in metafunc.fixturenames:
        return
    # A test's own mark counts before its file's.
    mark = next((each for each in metafunc.definition.iter_markers() if each.name in MARKED), None)
    vendors = list(VENDORS) if mark and mark.name == "both_vendors" else [mark.kwargs.get("vendor")] if mark else []
    if vendors and all(vendors):
        metafunc.parametrize("vendor", vendors, indirect=True, scope="session")


@pytest.fixture(scope="session")
def vendor(request):
    """A name of VENDORS: whose machines `boot` gives to this test. None where it names its engines."""
    return getattr(request, "param", None)


class Booter:
    def __init__(self, make_iso, vendor):
        self.make_iso = make_iso
        self.vendor = vendor
        self.machines = []

    def __call__(self, modules=None, cmdline="", cpu=None, memory=None, engine=None, cpus=1):
        """Boots the demonstration, or the modules given, on the vendor's engine unless told otherwise."""
        assert engine or self.vendor, "a test that names its engines has named none"
        if modules is None and not cmdline:
            iso = DEMO_ISO
        else:
            iso = self.make_iso(demo_modules() if modules is None else modules, cmdline)
        machine = Machine(engine or VENDORS[self.vendor](cpu, memory, cpus), iso)
        self.machines.append(machine)
        return machine

    def end(self):
        for machine in self.machines:
            machine.stop()


@pytest.fixture
def boot(make_iso, vendor):
    booter = Booter(make_iso, vendor)
    yield booter
    booter.end()


@pytest.fixture(scope="module")
def boot_for_module(make_iso, vendor):
    """As `boot`, for a machine that all tests of a file share."""
    booter = Booter(make_iso, vendor)
    yield booter
    booter.end()
