"""Linux with the real KVM in Bochs, and Quire's consoles in QEMU in that Linux.

    Bochs, which emulates VMX with EPT
      Debian's Linux with kvm_intel nested=1      its console is COM1: LinuxHost
        Debian's QEMU with -accel kvm
          Quire                                   its console is COM2: NestedQuire
            Quire's guests

What Linux starts from is put together by nested_stack.py; the images that QEMU boots travel beside.
"""

import os
import pty
import re
import sys
import time
import tty

from quire_machine.console import Console, MachineError
from quire_machine.engines import Bochs
from quire_machine.initramfs import Archive
from quire_machine.machine import POWER_OFF, Machine

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import image  # noqa: E402

GRUB_MODULES = "normal linux iso9660 biosdisk boot serial terminal echo"
GRUB_CONFIG = """
serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
echo 'host: grub'
linux /linux {words}
initrd /images.cpio /host.lz4
boot
"""

# Bochs's TSC ticks once an instruction. Linux is told that this is 400 MHz, for two reasons: it then does
# not spend its time on timer interrupts, and KVM has the VMX-preemption timer below 429 MHz only.
KERNEL_WORDS = (
    "console=ttyS0,115200 nokaslr mitigations=off nosmp tsc=reliable tsc_early_khz=400000 "
    "no_timer_check nowatchdog cryptomgr.notests audit=0 lsm= random.trust_cpu=on quiet panic=-1"
)

# Enough on a machine with ten times as much to do.
LAYER_SECONDS = 600


class HostInBochs(Bochs):
    """Bochs as the machine that Linux runs on; COM2 is on `second`."""

    default_cpu = "corei7_haswell_4770"
    good_exits = (1,)  # Linux has switched off
    ips = 50_000_000

    def __init__(self, second, memory):
        super().__init__(memory=memory)
        self.second = second

    def command(self, iso, tty, folder):
        return super().command(iso, tty, folder) + [
            # Linux reads MSRs that Bochs has not.
            f"cpu: model={self.cpu}, count=1, ips={self.ips}, reset_on_triple_fault=0, "
            "ignore_bad_msrs=1",
            f"com2: enabled=1, mode=term, dev={self.second}",
        ]


# How many times longer what Quire does takes here than in Bochs alone.
SLOWNESS = 15


class Paced:
    """A console to which keys go no faster than they are fetched: a serial port of Bochs holds 16, and
    Linux may be long in coming for them."""

    KEYS, SECONDS = 12, 0.1
    _next_keys = 0.0

    def _write(self, data):
        now = time.monotonic()
        if now < self._next_keys:
            return 0
        self._next_keys = now + self.SECONDS
        return super()._write(data[: self.KEYS])


class LinuxHost(Paced, Machine):
    """Linux with KVM in Bochs. Its console is COM1; `images` (name -> file) can be booted."""

    def __init__(self, images, memory, stack):
        self.stack = stack
        self.images = images
        self.com2, self._com2_slave = pty.openpty()
        tty.setraw(self._com2_slave)
        os.set_blocking(self.com2, False)
        self._seen = 0  # lines of the console before this one have been looked at
        self._booted = None  # the NestedQuire that has COM2
        logs = os.path.join(os.path.dirname(stack.folder), "logs")
        os.makedirs(logs, exist_ok=True)
        self.log = os.path.join(logs, f"linux-{os.getpid()}-{self.com2}.log")
        self._log_file = open(self.log, "wb", buffering=0)
        super().__init__(HostInBochs(os.ttyname(self._com2_slave), memory), stack.kernel)

    def _start(self, iso):
        images = Archive()
        for name, file in self.images.items():
            images.file(name, file)
        path = os.path.join(self._folder, "images.cpio")
        with open(path, "wb") as out:
            out.write(images.bytes())
        output = os.path.join(self._folder, "host.iso")
        # The images first: what follows a compressed archive is not unpacked.
        files = {"/linux": self.stack.kernel, "/images.cpio": path, "/host.lz4": self.stack.files}
        image.write_iso(output, GRUB_CONFIG.format(words=KERNEL_WORDS), files, GRUB_MODULES)
        os.unlink(path)
        super()._start(output)

    def _take(self, data):
        self._log_file.write(data)
        super()._take(data)
        lines = self.lines
        for line in lines[self._seen :]:
            ended = re.match(r"host: qemu ended with (\d+)", line)
            if ended and self._booted:
                self._booted.gone(int(ended.group(1)))
        self._seen = len(lines)

    def _status(self):
        if self._booted:
            self._booted.gone(None)
        return super()._status()

    def tell(self, line, timeout=LAYER_SECONDS):
        """Has the shell in Linux do `line`. Returns what it printed; raises MachineError where its
        status is not 0."""
        start = len(self.lines)
        # On a busy computer pieces meet each other on their way: each waits for the echo of the last.
        for at in range(0, len(line), self.KEYS):
            self.send(line[at : at + self.KEYS])
            typed = line[: at + self.KEYS].rstrip()
            self.wait_for(lambda: typed in self.screen.current, f"the echo of {typed!r}", timeout)
        self.send("\n")
        status = self.expect(r"host: did (\d+)", timeout).group(1)
        if status != "0":
            raise MachineError(f"Linux could not do {line!r}; its log: {self.log}\n{self.tail()}")
        return self.lines[start:-1]

    def come(self, what):
        """Waits for a line that begins with `what`."""
        try:
            self.expect("^" + re.escape(what), LAYER_SECONDS)
        except MachineError as error:
            raise MachineError(f"{error}\nits log: {self.log}") from error

    def boot(self, name, memory, cpu, *options):
        """Boots the image `name` in QEMU; returns its console."""
        booted = NestedQuire(self)
        booted.start(name, memory, cpu, *options)
        return booted

    def holds_com2(self, booted):
        self._booted = booted

    def _close(self):
        super()._close()
        self._log_file.close()
        for descriptor in (self.com2, self._com2_slave):
            if descriptor is not None:
                os.close(descriptor)
        self.com2 = self._com2_slave = None


class NestedQuire(Paced, Console):
    """Quire's console on COM2 of a LinuxHost, from QEMU's start to its end."""

    good_exits = (0, 1)  # those of QEMU
    slowness = SLOWNESS

    def __init__(self, host):
        self.host = host
        self.log = host.log.replace("/linux-", "/quire-")
        self._gone_read, self._gone = os.pipe2(os.O_CLOEXEC)
        self._ended_with = None
        super().__init__(os.dup(host.com2))

    def start(self, name, memory, cpu, *options):
        """Has QEMU boot the image `name`."""
        self.host.holds_com2(self)
        self._start_reading()
        self.host.tell(" ".join(["quire", name, str(memory), cpu, *options]))

    def gone(self, status):
        """QEMU has ended with `status`, or Linux has without saying so."""
        if self._gone is not None:
            self._ended_with = status
            os.close(self._gone)
            self._gone = None

    def _ended(self):
        return self._gone_read

    def _status(self):
        # None is for what still runs.
        return -1 if self._ended_with is None else self._ended_with

    def _take(self, data):
        with open(self.log, "ab") as log:
            log.write(data)
        super()._take(data)

    def seconds_run(self):
        return self.host.seconds_run()

    def powered_off(self):
        with self.changed:
            return POWER_OFF in self.screen.lines and self.status in self.good_exits

    def emulator_says(self):
        """The last lines of Linux's console."""
        said = [f"  Linux: {line}" for line in self.host.lines[-8:]]
        return "\n".join([*said, f"  its log: {self.host.log}"])

    def tail(self):
        text = super().tail()
        if self.status not in (None, *self.good_exits):
            text += f"\nQEMU in Linux ended with status {self.status}\n{self.emulator_says()}"
        return text

    def _close(self):
        self.gone(None)
        super()._close()
