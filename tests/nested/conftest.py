"""Hosts for the tests of Quire under KVM: `host.boot(image, ...)` is a Quire in QEMU with KVM.

Without more said it is KVM in a Linux in Bochs, one boot of it for all tests of a worker that have the same
images. With QUIRE_KVM=1, as `make test-kvm` sets it, it is this machine's own KVM.
"""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "emulator"))

from hosts import IMAGES, NestedHost, RealHost, make_images  # noqa: E402
from quire_machine import MachineError  # noqa: E402
from quire_machine.debian import DebianError  # noqa: E402
from quire_machine.engines import why_not_kvm  # noqa: E402

REAL = os.environ.get("QUIRE_KVM") == "1"
LONG = os.environ.get("QUIRE_LONG") == "1"


def pytest_configure(config):
    config.addinivalue_line("markers", "module_parameters: loads KVM with parameters of its own")
    config.addinivalue_line("markers", "minutes: many of them in Bochs, where it takes QUIRE_LONG=1")
    for name in ("one_vendor", "both_vendors"):
        config.addinivalue_line("markers", f"{name}: of tests/emulator, parts of which are used here")


def pytest_collection_modifyitems(items):
    for item in items:
        if REAL and item.get_closest_marker("module_parameters"):
            item.add_marker(pytest.mark.skip(reason="KVM of this machine is not reloaded"))
        if not REAL and not LONG and item.get_closest_marker("minutes"):
            item.add_marker(pytest.mark.skip(reason="QUIRE_LONG=1 runs it: many minutes in Bochs"))


class Hosts:
    """The host that is running, and with which images: there is one at a time."""

    def __init__(self):
        self.wanted = self.running = None

    def of(self, wanted, folder):
        if wanted is not self.wanted:
            self.stop()
            self.running = (RealHost if REAL else NestedHost)(make_images(folder, wanted))
            self.wanted = wanted
        return self.running

    def stop(self):
        if self.running:
            self.running.stop()
        self.wanted = self.running = None


@pytest.fixture(scope="session")
def hosts():
    """Two workers share the tests out, a test at a time: the longest are first in their files."""
    made = Hosts()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def host(request, hosts, tmp_path_factory):
    """With the file's own IMAGES, or those of hosts.py."""
    if REAL:
        reason = why_not_kvm()
        assert not reason, reason
    try:
        return hosts.of(getattr(request.module, "IMAGES", IMAGES), tmp_path_factory.mktemp("images"))
    except DebianError as error:
        pytest.skip(f"no Linux to run KVM in: {error}")


@pytest.fixture
def boot(host):
    """boot(image, cpu=..., memory=..., parameters=..., options=...): a Quire, gone after the test."""
    booted = []

    def start(name, cpu="", memory=256, parameters=(), options=()):
        if not REAL:
            host.kvm(*parameters)
        machine = host.boot(name, memory, ",".join(["host,+vmx", *cpu.split()]), *options)
        booted.append(machine)
        return machine

    yield start
    for machine in booted:
        if machine.status is None and not REAL:
            # A later boot needs the memory and the serial port.
            host.linux.tell("killall -9 qemu-system-x86_64")
            try:
                machine.wait_end(10)
            except MachineError:
                pass
        machine.stop()
