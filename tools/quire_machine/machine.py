"""A running machine: an emulator whose COM1 is a pseudo-terminal of ours.

The emulator runs in a session of its own, so that Ctrl-C at a terminal does not reach it, and is
killed by the kernel when this process dies, however it dies.
"""

import ctypes
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import tty

from quire_machine.console import Console, MachineError

POWER_OFF = "quire: power off"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Machine(Console):
    def __init__(self, engine, iso):
        self.engine = engine
        self._folder = tempfile.mkdtemp(prefix="quire-")
        master, self._slave = pty.openpty()
        super().__init__(master)
        self.about = engine.describe()
        try:
            self._start(iso)
        except BaseException:
            self._close()
            raise
        self._start_reading()

    def _start(self, iso):
        if not os.path.exists(iso):
            raise MachineError(f"there is no image {iso}")
        tty.setraw(self._slave)
        # In a folder of its own, and by names in it: an emulator's settings have no quotes that hold
        # every path.
        image = os.path.join(self._folder, "image.iso")
        os.symlink(os.path.abspath(iso), image)
        command = self.engine.command(image, os.ttyname(self._slave), self._folder)
        parent = os.getpid()

        def die_with_parent():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with open(self._emulator_log(), "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.engine.environment()},
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _emulator_log(self):
        return os.path.join(self._folder, "emulator.log")

    def _ended(self):
        return os.pidfd_open(self.process.pid)

    def _status(self):
        return self.process.wait()

    def seconds_run(self):
        """The emulator's CPU time, so that guests get as far on a busy computer as on an idle one."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0  # it has ended
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def powered_off(self):
        """True when the machine ended by its own `quit`: it said so, and the emulator agrees."""
        with self.changed:
            said = POWER_OFF in self.screen.lines
            return said and self.status in self.engine.good_exits

    def tail(self):
        """The last lines of output and, where it says anything, of the emulator's own log."""
        text = super().tail()
        if self.status not in (None, *self.engine.good_exits):
            text += f"\n{self.engine.name} ended with status {self.status}\n{self.emulator_says()}"
        return text

    def emulator_says(self, lines=8):
        """The last lines of its own logs; with None, all."""
        said = []
        for name in ("emulator.log", "bochs.log"):
            try:
                path = os.path.join(self._folder, name)
                with open(path, encoding="utf-8", errors="replace") as log:
                    text = "".join(c for c in log.read() if c == "\n" or c.isprintable())
                said += text.splitlines()[-(lines or 0) :]
            except OSError:
                pass
        return "\n".join(f"  {self.engine.name}: {line}" for line in said if line.strip())

    def stop(self):
        """Kills whatever still runs and removes every trace. May be called twice."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        super().stop()

    def _close(self):
        super()._close()
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None
        shutil.rmtree(self._folder, ignore_errors=True)
