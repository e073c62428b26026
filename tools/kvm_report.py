#!/usr/bin/python3
"""What a machine with VMX shows of Quire, to send in after `make test-kvm`; nothing personal in it.

    tools/kvm_report.py check        status 1, with a sentence, where this machine's KVM cannot serve
    tools/kvm_report.py report XML   CPU, kernel, QEMU, what KVM offers, and the tests' results
"""

import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from quire_machine import engines  # noqa: E402

PARAMETERS = "/sys/module/kvm_intel/parameters"


def cpu_facts(path="/proc/cpuinfo"):
    """The first CPU's: name -> value."""
    facts = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not value:
                break
            facts[name.strip()] = value.strip()
    return facts


def parameters(folder=PARAMETERS):
    """kvm_intel's, as `name=value`."""
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, name), encoding="ascii") as value:
                found.append(f"{name}={value.read().strip()}")
        except OSError:
            pass  # some are for root alone
    return found


def qemu_version():
    try:
        said = subprocess.check_output([engines.QEMU, "--version"], text=True)
        return said.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        return "none"


def results(path):
    """A line for each test."""
    for case in ElementTree.parse(path).iter("testcase"):
        tags = {each.tag for each in case}
        how = "skipped" if "skipped" in tags else "passed"
        how = "FAILED" if tags & {"failure", "error"} else how
        yield f"  {how:8} {float(case.get('time')):6.1f} s  {case.get('name')}"


def report(path):
    cpu = cpu_facts()
    print("--- report: Quire under this machine's KVM")
    for name in ("model name", "cpu family", "model", "stepping", "microcode", "vmx flags"):
        print(f"{name}: {cpu.get(name, '-')}")
    print(f"kernel: {platform.system()} {platform.release()}")
    print(f"QEMU: {qemu_version()}")
    print(f"kvm_intel: {' '.join(parameters()) or '-'}")
    print("results:")
    for line in results(path):
        print(line)
    print("--- end of the report")


def main():
    if sys.argv[1:] == ["check"]:
        reason = engines.why_not_kvm()
        if reason:
            sys.exit(f"kvm_report: not here: {reason}; `make test-nested` runs anywhere")
    elif len(sys.argv) == 3 and sys.argv[1] == "report":
        report(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
