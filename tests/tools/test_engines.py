"""Choosing an engine: what is taken, and the sentences that say why."""

import os

import pytest

from quire_machine import engines

NESTED_OFF = (
    "nested VMX is switched off (with no virtual machine running: "
    "`sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1`)"
)


QUICKEST = "engine qemu: it emulates AMD-V with nested paging, and quickest; ENGINE=bochs has VMX with EPT"


@pytest.fixture
def machine(monkeypatch):
    """A machine made to measure. Its /dev/kvm is a file that opens unless told otherwise."""

    there = {"bochs": "bochs", "qemu": engines.QEMU}
    exists, opened = os.path.exists, os.open

    def made(flags="vmx", nested="Y", trial=engines.PROBE_ALL, kvm=True, programs=tuple(there)):
        monkeypatch.setattr(engines, "cpu_flags", lambda: set(flags.split()))
        monkeypatch.setattr(engines, "nested_parameter", lambda module: nested)
        monkeypatch.setattr(engines, "try_guest", lambda accel, cpu: trial)
        installed = [there[each] for each in programs]

        def kvm_exists(path):
            return kvm is not None if path == "/dev/kvm" else exists(path)

        def open_kvm(path, *rest, **more):
            if path != "/dev/kvm":
                return opened(path, *rest, **more)
            if not kvm:
                raise PermissionError(13, "Permission denied")
            return opened("/dev/null", os.O_RDWR)

        monkeypatch.setattr(os, "open", open_kvm)
        monkeypatch.setattr(os.path, "exists", kvm_exists)
        monkeypatch.setattr(engines.shutil, "which", lambda p: p if p in installed else None)

    return made


@pytest.mark.parametrize(
    "about, reason",
    [
        ({}, None),
        ({"nested": None}, None),
        ({"kvm": None, "flags": "sse2"}, "there is no /dev/kvm"),
        ({"kvm": None}, "there is no /dev/kvm (this CPU shows VMX: `sudo modprobe kvm_intel nested=1`)"),
        (
            {"kvm": False},
            "/dev/kvm does not open: Permission denied (`sudo usermod -aG kvm $USER`, then log in anew)",
        ),
        ({"flags": "sse2"}, "/dev/kvm opens, but this CPU shows neither VMX nor SVM"),
        ({"flags": "svm", "kvm": None}, "there is no /dev/kvm (this CPU shows SVM: `sudo modprobe kvm_amd nested=1`)"),
        ({"flags": "svm", "nested": "0"}, NESTED_OFF.replace("VMX", "SVM").replace("kvm_intel", "kvm_amd")),
        ({"flags": "svm", "trial": engines.PROBE_NO_VMX}, "a guest under this KVM sees no SVM"),
        (
            {"flags": "svm", "trial": engines.PROBE_NO_NESTED_PAGING},
            "a guest under this KVM sees SVM without nested paging",
        ),
        ({"nested": "N"}, NESTED_OFF),
        ({"nested": "0"}, NESTED_OFF),
        ({"trial": engines.PROBE_NO_VMX}, "a guest under this KVM sees no VMX"),
        ({"trial": engines.PROBE_NO_EPT}, "a guest under this KVM sees VMX without EPT"),
        ({"trial": "a trial guest did not start"}, "a trial guest did not start"),
    ],
)
def test_kvm_is_judged_by_what_a_guest_gets(machine, about, reason):
    machine(**about)
    assert engines.why_not_kvm() == reason
    engine, said = engines.choose("auto")
    if reason is None:
        assert engine.name == "kvm"
        assert said == ["engine kvm: a trial guest sees VMX, EPT and unrestricted guest"]
        assert engines.choose("kvm")[0].name == "kvm"
    else:
        assert engine.name == "qemu"
        assert said == [f"not kvm: {reason}", QUICKEST]
        with pytest.raises(engines.EngineError, match="ENGINE=kvm cannot be had: "):
            engines.choose("kvm")


def test_amd_under_kvm(machine):
    machine(flags="svm", trial=engines.PROBE_SVM)
    engine, said = engines.choose("auto")
    assert (engine.name, engine.cpu) == ("kvm", "host,+svm")
    assert said == ["engine kvm: a trial guest sees SVM and nested paging"]


def test_a_cpu_model_of_bochs_asks_for_vmx(machine, monkeypatch):
    machine(kvm=None)
    monkeypatch.setattr(engines.Bochs, "models", staticmethod(lambda: ["corei7_icelake_u", "both"]))
    monkeypatch.setattr(engines.Qemu, "models", staticmethod(lambda: ["EPYC", "both"]))
    engine, said = engines.choose("auto", cpu="corei7_icelake_u")
    assert (engine.name, engine.cpu) == ("bochs", "corei7_icelake_u")
    assert said[1:] == [
        "engine bochs: it emulates VMX with EPT, as CPU=corei7_icelake_u asks; "
        "ENGINE=qemu, with AMD-V, is much quicker"
    ]
    for cpu in ("EPYC", "EPYC,-npt", "both"):
        engine, said = engines.choose("auto", cpu=cpu)
        assert (engine.name, engine.cpu, said[1:]) == ("qemu", cpu, [QUICKEST])
    with pytest.raises(engines.EngineError, match="qemu has no CPU model 'none'"):
        engines.choose("auto", cpu="none")


def test_where_one_of_both_is_missing_the_other_serves(machine):
    machine(kvm=None, programs=("qemu",))
    engine, said = engines.choose("auto")
    assert engine.name == "qemu"
    assert said[1:] == ["engine qemu: it emulates AMD-V with nested paging"]
    machine(kvm=None, programs=("bochs",))
    engine, said = engines.choose("auto")
    assert engine.name == "bochs"
    assert said[1].startswith("not qemu: qemu-system-x86_64 is not installed")
    assert said[2:] == ["engine bochs: it emulates VMX with EPT"]


def test_nothing_installed(machine):
    machine(kvm=None, programs=())
    with pytest.raises(engines.EngineError, match="not kvm: .*not qemu: .*not bochs: "):
        engines.choose("auto")
    with pytest.raises(engines.EngineError, match="ENGINE=bochs cannot be had: bochs is not inst"):
        engines.choose("bochs")


def test_memory_that_bochs_cannot_show(monkeypatch):
    monkeypatch.setitem(engines.Bochs.firmwares, "bochs", "/nowhere")
    engine = engines.Bochs(memory=4096)
    assert (engine.memory, engine.firmware) == (3072, engines.Bochs.firmwares["seabios"])
    assert "3072 MiB and not 4096: more wants the firmware /nowhere" in engine.describe()


def test_memory_in_full(monkeypatch):
    monkeypatch.setitem(engines.Bochs.firmwares, "bochs", "/dev/null")
    assert engines.Bochs(memory=3072).firmware == engines.Bochs.firmwares["seabios"]
    engine = engines.Bochs(memory=4096)
    assert (engine.memory, engine.firmware) == (4096, "/dev/null")
    assert "memory: guest=5120, host=2048\n" in engine._settings("x", "tty")
    assert "16384 MiB (13312 MiB of them above 4 GiB) and not 99999: that is the most" in (
        engines.Bochs(memory=99999).describe()
    )


def test_a_cpu_model_is_looked_up_where_it_can_be(machine, monkeypatch):
    machine(kvm=None)
    monkeypatch.setattr(engines, "output_of", lambda command: "")
    assert engines.choose("bochs", cpu="new_model")[0].cpu == "new_model"


def test_no_such_engine():
    with pytest.raises(engines.EngineError, match="there is no engine 'xen'"):
        engines.choose("xen")


def test_the_trial_guest_runs_and_reports():
    # QEMU's own emulation offers no VMX: a real answer from the real boot sector.
    assert engines.try_guest("tcg", "qemu64,-svm") == engines.PROBE_NO_VMX
    assert engines.try_guest("tcg", "max,-npt") == engines.PROBE_NO_NESTED_PAGING
    assert engines.try_guest("tcg", "max") == engines.PROBE_SVM


def test_a_trial_that_cannot_start_says_so():
    said = engines.try_guest("tcg", "no-such-cpu")
    assert said.startswith("a trial guest did not start (")
    assert "no-such-cpu" in said
