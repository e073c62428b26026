"""The engines that can run Quire, how each is started, and how one is chosen.

  kvm    QEMU with nested KVM: VMX in hardware, where this machine offers it to a guest
  qemu   QEMU's own emulation: AMD-V with nested paging, anywhere, in seconds
  bochs  VMX with EPT emulated, anywhere, an instruction at a time
  nested QEMU with nested KVM in a Linux in Bochs: the first where only the second is to be had; slow

Of its own accord the launcher takes kvm where that serves; else Bochs where VMX is asked for, by a CPU
model that Bochs has; else QEMU. It says which, why, and how the other is to be had.

Whether KVM serves is found out by trying: /dev/kvm can be there and open, and yet start no
ordinary guest, or start one that sees no VMX.
"""

import argparse
import difflib
import glob
import os
import re
import shutil
import subprocess
import tempfile
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
QEMU = "qemu-system-x86_64"
DEBUG_EXIT = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
PROBE_SECONDS = 4

# Status of the probe's process (2 * code + 1, see kvm_probe.asm) and what it means.
PROBE_NO_VMX, PROBE_NO_EPT, PROBE_NO_UNRESTRICTED, PROBE_ALL = 33, 35, 37, 39
PROBE_NO_NESTED_PAGING, PROBE_SVM = 41, 43


class EngineError(Exception):
    """An engine cannot be had; the text is a sentence for the person who asked."""


def output_of(command):
    """What a program says when it is asked for help; nothing where that fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def cpus_text(cpus):
    return "" if cpus == 1 else f", {cpus} CPUs"


class Bochs:
    """SeaBIOS is the firmware: Bochs's own is broken in some distributions (Ubuntu 24.04's faults
    before it boots). `firmware="bochs"` asks for that one, which locks IA32_FEATURE_CONTROL."""

    name = "bochs"
    default_cpu = "corei7_icelake_u"
    good_exits = (0,)
    firmwares = {
        "seabios": "/usr/share/seabios/bios-256k.bin",
        "bochs": "/usr/share/bochs/BIOS-bochs-latest",
    }
    vga = "/usr/share/seabios/vgabios-stdvga.bin"

    # Below 4 GiB the last GiB is for devices. What lies above, only Bochs's own firmware reports.
    low_memory = 3072
    address_hole = 1024
    most_memory = 16384  # it takes minutes to start with that
    host_memory = 2048  # Bochs holds no more, and swaps the rest

    def __init__(self, cpu=None, memory=None, cpus=1, firmware="seabios"):
        self.cpu = cpu or self.default_cpu
        self.memory = memory or 256
        self.cpus = cpus
        self.wanted = self.memory
        if self.memory > self.low_memory:
            if os.path.exists(self.firmwares["bochs"]):
                firmware = "bochs"
            else:
                self.memory = self.low_memory
        # SeaBIOS tells of one CPU here: it asks a register of QEMU's how many there are.
        if cpus > 1 and os.path.exists(self.firmwares["bochs"]):
            firmware = "bochs"
        self.memory = min(self.memory, self.most_memory)
        self.firmware = self.firmwares[firmware]

    def describe(self):
        text = f"Bochs, CPU model {self.cpu}{cpus_text(self.cpus)}, {self.memory} MiB"
        if self.memory > self.low_memory:
            text += f" ({self.memory - self.low_memory} MiB of them above 4 GiB)"
        if self.memory < self.wanted:
            text += f" and not {self.wanted}: " + (
                "that is the most"
                if self.memory == self.most_memory
                else f"more wants the firmware {self.firmwares['bochs']} (package bochsbios)"
            )
        elif self.memory > self.host_memory:
            text += f"; slow to start, for Bochs swaps what is beyond {self.host_memory} MiB"
        return text

    @staticmethod
    def models():
        """The names that --cpu may have; none where they cannot be had."""
        said = output_of(["bochs", "-help", "cpu"])
        return re.findall(r"^\w+$", said.partition("Supported CPU models:")[2], re.M)

    def command(self, iso, tty, folder):
        """The command, to be run in `folder`, that boots `iso` with COM1 on `tty`."""
        with open(os.path.join(folder, "bochsrc"), "w", encoding="utf-8") as out:
            out.write(self._settings(os.path.relpath(iso, folder), tty))
        # The debugger is compiled in: continue, and quit when the machine stops for any reason.
        with open(os.path.join(folder, "debugger"), "w", encoding="ascii") as out:
            out.write("c\nq\n")
        return ["bochs", "-q", "-f", "bochsrc", "-rc", "debugger"]

    def environment(self):
        # Bochs's text display wants a terminal type, and draws on a pseudo-terminal of its own that nobody
        # reads: Bochs stands still once that is full. So the type is one that has no codes for the cursor,
        # which with several CPUs is drawn anew all the time.
        return {"TERM": "vt100"}

    def _settings(self, iso, tty):
        guest = self.memory + (self.address_hole if self.memory > self.low_memory else 0)
        return "\n".join(
            [
                f"display_library: {self._display()}",
                "config_interface: textconfig",
                f"memory: guest={guest}, host={min(guest, self.host_memory)}",
                f"romimage: file={self.firmware}, options=fastboot",
                f"vgaromimage: file={self.vga}",
                "sound: driver=dummy",
                "clock: sync=none",
                "magic_break: enabled=0",
                f"cpu: model={self.cpu}, count={self.cpus}, ips=4000000, "
                "reset_on_triple_fault=0, ignore_bad_msrs=0",
                "panic: action=fatal",
                "error: action=report",
                "info: action=ignore",
                "debug: action=ignore",
                f"ata0-master: type=cdrom, path={iso}, status=inserted",
                "boot: cdrom",
                f"com1: enabled=1, mode=term, dev={tty}",
                "log: bochs.log",
                "",
            ]
        )

    @staticmethod
    def _display():
        if glob.glob("/usr/lib/*/bochs/plugins/libbx_term_gui.so"):
            return "term"
        return 'rfb, options="timeout=0"'  # opens a port, the first free one from 5900 up


class Qemu:
    """QEMU without KVM: it emulates AMD-V with nested paging, and no VMX."""

    name = "qemu"
    accel = ["-accel", "tcg"]
    default_cpu = "max"
    # Through isa-debug-exit (code 0 is status 1), or by the ACPI power button.
    good_exits = (0, 1)

    def __init__(self, cpu=None, memory=None, cpus=1):
        self.cpu = cpu or self.default_cpu
        self.memory = memory or 256
        self.cpus = cpus

    def describe(self):
        return f"QEMU with SVM emulated, CPU model {self.cpu}{cpus_text(self.cpus)}, {self.memory} MiB"

    @staticmethod
    def models():
        said = output_of([QEMU, "-cpu", "help"]).partition("Available CPUs:")[2]
        return re.findall(r"^x86 (\S+)", said.partition("\n\n")[0], re.M)

    def command(self, iso, tty, folder):
        return [
            QEMU,
            *self.accel,
            *["-cpu", self.cpu, "-m", str(self.memory), "-smp", str(self.cpus)],
            *["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"],
            *["-monitor", "none", "-no-reboot", "-serial", tty],
            *DEBUG_EXIT,
            *["-cdrom", os.path.relpath(iso, folder)],
        ]

    def environment(self):
        return {}


class Kvm(Qemu):
    name = "kvm"
    accel = ["-accel", "kvm"]

    def __init__(self, cpu=None, memory=None, cpus=1):
        self.default_cpu = f"host,+{vendor_flag()}"
        super().__init__(cpu, memory, cpus)

    def describe(self):
        return f"QEMU with nested KVM, CPU model {self.cpu}{cpus_text(self.cpus)}, {self.memory} MiB"


class Nested:
    """The real KVM without VMX in hardware: see nested.py. `cpu` and `memory` are those of QEMU."""

    name = "nested"
    default_cpu = "host,+vmx"
    programs = ("bochs", "lz4", "strip", "readelf")

    def __init__(self, cpu=None, memory=None, cpus=1, suite=None):
        if cpus != 1:
            raise EngineError("ENGINE=nested has one CPU; CPUS is for bochs, qemu and kvm")
        self.cpu = cpu or self.default_cpu
        self.memory = memory or 256
        # Debian's suite that Linux and QEMU are taken from, in place of the system's own sources.
        self.suite = suite or os.environ.get("SUITE") or None

    @staticmethod
    def models():
        return []  # QEMU in Linux says so itself

    def describe(self):
        suite = f" of Debian's {self.suite}" if self.suite else ""
        return f"QEMU with nested KVM{suite} in Linux in Bochs, CPU {self.cpu}, {self.memory} MiB"


ENGINES = {engine.name: engine for engine in (Kvm, Bochs, Qemu, Nested)}
PROGRAMS = {"kvm": (QEMU,), "bochs": ("bochs",), "qemu": (QEMU,), "nested": Nested.programs}


def missing_program(engine):
    """A sentence when a program that the engine needs is not installed, else None."""
    for program in PROGRAMS[engine.name]:
        if not shutil.which(program):
            return f"{program} is not installed (tools/setup.sh installs it)"
    return None


def cpu_flags(path="/proc/cpuinfo"):
    try:
        with open(path, encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("flags"):
                    return set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def vendor_flag():
    """What this machine's CPU calls its virtualisation: AMD's svm, else vmx."""
    return "svm" if "svm" in cpu_flags() else "vmx"


# By that: the module of KVM, and the name that people know.
KVM_OF = {"vmx": ("kvm_intel", "VMX"), "svm": ("kvm_amd", "SVM")}


def nested_parameter(module):
    try:
        with open(f"/sys/module/{module}/parameters/nested", encoding="ascii") as value:
            return value.read().strip()
    except OSError:
        return None


def try_guest(accel, cpu):
    """Runs kvm_probe.asm as a guest and returns its status, or a sentence about what went wrong."""
    with tempfile.TemporaryDirectory(prefix="quire-probe-") as folder:
        sector = "probe.bin"  # a path with a comma would need quotes
        source = os.path.join(HERE, "kvm_probe.asm")
        try:
            subprocess.run(["nasm", "-f", "bin", "-o", sector, source], check=True, cwd=folder)
            done = subprocess.run(
                [QEMU, "-accel", accel, "-cpu", cpu, "-m", "16", "-nodefaults"]
                + ["-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"]
                + [*DEBUG_EXIT, "-drive", f"file={sector},format=raw,if=ide,snapshot=on"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=folder,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            return f"{error.filename} is not installed"
        except subprocess.CalledProcessError:
            return "the trial guest could not be assembled"
        except subprocess.TimeoutExpired:
            return f"a trial guest did not answer within {PROBE_SECONDS} seconds"
    if PROBE_NO_VMX <= done.returncode <= PROBE_SVM:
        return done.returncode
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return "a trial guest did not start" + (f" ({said[-1]})" if said else "")


def why_not_kvm(device="/dev/kvm"):
    """None where KVM gives a guest all that Quire needs, else one sentence saying what is missing, and
    what would switch it on. The cheap questions come first: a machine that plainly cannot is told so at
    once."""
    flag = vendor_flag()
    module, known_as = KVM_OF[flag]
    shown = flag in cpu_flags()
    if not os.path.exists(device):
        hint = f" (this CPU shows {known_as}: `sudo modprobe {module} nested=1`)" if shown else ""
        return f"there is no {device}{hint}"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = " (`sudo usermod -aG kvm $USER`, then log in anew)"
        return f"{device} does not open: {error.strerror}{hint}"
    if not shown:
        return f"{device} opens, but this CPU shows neither VMX nor SVM"
    if nested_parameter(module) in ("N", "0"):
        return (
            f"nested {known_as} is switched off (with no virtual machine running: "
            f"`sudo modprobe -r {module} && sudo modprobe {module} nested=1`)"
        )
    absent = missing_program(Kvm)
    if absent:
        return absent
    status = try_guest("kvm", f"host,+{flag}")
    return {
        PROBE_ALL: None,
        PROBE_SVM: None,
        PROBE_NO_NESTED_PAGING: "a guest under this KVM sees SVM without nested paging",
        PROBE_NO_VMX: f"a guest under this KVM sees no {known_as}",
        PROBE_NO_EPT: "a guest under this KVM sees VMX without EPT",
        PROBE_NO_UNRESTRICTED: "a guest under this KVM sees EPT without unrestricted guest",
    }.get(status, status)


def check_model(engine):
    """Raises EngineError where the engine has no CPU model of that name, with those that it has."""
    name = engine.cpu.split(",")[0]  # QEMU takes flags behind it
    known = [] if engine.cpu == engine.default_cpu else engine.models()
    if known and name not in known:
        meant = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {meant[0]}?" if meant else ""
        said = textwrap.wrap("it has " + ", ".join(known), 96, break_on_hyphens=False)
        raise EngineError(
            f"{engine.name} has no CPU model {name!r}{hint}\n  " + "\n  ".join(said)
        )


def choose(wanted="auto", cpu=None, memory=None, cpus=1):
    """Returns the engine to use and the sentences that say why. Raises EngineError with a sentence
    where what was asked for cannot be had."""
    engine, said = choose_kind(wanted, cpu, memory, cpus)
    check_model(engine)
    return engine, said


def memory_size(text):
    """A number of MiB of the person's, for argparse."""
    if not str(text).isdigit() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"memory is a number of MiB from 32 up, not {text!r}")
    return int(text)


MOST_CPUS = 64


def cpu_count(text):
    """A number of CPUs of the person's, for argparse."""
    if not str(text).isdigit() or not 1 <= int(text) <= MOST_CPUS:
        raise argparse.ArgumentTypeError(f"cpus is a number from 1 to {MOST_CPUS}, not {text!r}")
    return int(text)


def choose_kind(wanted, cpu, memory, cpus):
    wanted = wanted or "auto"
    if wanted not in ("auto", *ENGINES):
        raise EngineError(f"there is no engine {wanted!r}; ENGINE is auto, kvm, bochs, qemu or nested")
    if wanted == "kvm":
        reason = why_not_kvm()
        if reason:
            raise EngineError(f"ENGINE=kvm cannot be had: {reason}; ENGINE=bochs runs anywhere")
        return Kvm(cpu, memory, cpus), [f"engine kvm, as asked: {KVM_OF[vendor_flag()][1]} in hardware"]
    if wanted != "auto":
        absent = missing_program(ENGINES[wanted])
        if absent:
            raise EngineError(f"ENGINE={wanted} cannot be had: {absent}")
        said = {
            "bochs": "VMX with EPT emulated",
            "qemu": "AMD-V with nested paging emulated",
            "nested": "the real KVM, in a Linux in Bochs",
        }
        return ENGINES[wanted](cpu, memory, cpus), [f"engine {wanted}, as asked: {said[wanted]}"]

    reason = why_not_kvm()
    if not reason:
        sees = {"vmx": "VMX, EPT and unrestricted guest", "svm": "SVM and nested paging"}
        return Kvm(cpu, memory, cpus), [f"engine kvm: a trial guest sees {sees[vendor_flag()]}"]
    return choose_emulator(cpu, memory, cpus, [f"not kvm: {reason}"])


EMULATES = {Bochs: "it emulates VMX with EPT", Qemu: "it emulates AMD-V with nested paging"}
INSTEAD = {
    Bochs: "; ENGINE=qemu, with AMD-V, is much quicker",
    Qemu: ", and quickest; ENGINE=bochs has VMX with EPT",
}


def has_model(engine, cpu):
    """QEMU takes flags behind a model's name."""
    return cpu.split(",")[0] in (engine.default_cpu, *engine.models())


def choose_emulator(cpu, memory, cpus, said):
    """QEMU, unless the CPU model is one that Bochs has and QEMU has not, or only Bochs is installed."""
    order = [Qemu, Bochs]
    why = ""
    if cpu and not missing_program(Bochs) and has_model(Bochs, cpu) and not has_model(Qemu, cpu):
        order = [Bochs, Qemu]
        why = f", as CPU={cpu} asks"
    for engine in order:
        absent = missing_program(engine)
        if absent:
            said.append(f"not {engine.name}: {absent}")
            continue
        other = order[1 - order.index(engine)]
        hint = INSTEAD[engine] if not missing_program(other) else ""
        return engine(cpu, memory, cpus), said + [f"engine {engine.name}: {EMULATES[engine]}{why}{hint}"]
    raise EngineError("; ".join(said))
