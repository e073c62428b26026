"""tools/setup.sh on machines that lack something: a folder of stand-ins is all that it finds."""

import os
import shutil
import subprocess
import time

import pytest

from support import TOOLS

# What the script itself runs, and what it looks for here; each is linked to the real one.
NEEDED = ["bash", "id", "mktemp", "rm", "sort", "tail", "env", "grep", "chmod"]
LOOKED_FOR = ["gcc", "ld", "make", "nasm", "iasl", "grub-mkrescue", "xorriso", "mformat", "bochs"]


@pytest.fixture
def machine(tmp_path):
    """Runs `setup.sh run` where only some programs are to be had; scripts stand in for others."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def run(without=(), scripts=None, **settings):
        for name in NEEDED + [each for each in LOOKED_FOR if each not in without]:
            os.symlink(shutil.which(name), folder / name)
        for name, text in (scripts or {}).items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text("#!/bin/bash\n" + text)
            (folder / name).chmod(0o755)
        return subprocess.run(
            ["/bin/bash", os.path.join(TOOLS, "setup.sh"), "run"],
            env={"PATH": str(folder), "ENGINE": "bochs", "LOG": str(tmp_path / "log"), **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run


def test_silent_and_quick_when_nothing_is_missing(machine):
    start = time.monotonic()
    done = machine()
    assert (done.returncode, done.stdout) == (0, "")
    assert time.monotonic() - start < 5


def test_what_an_engine_needs(machine):
    """Of its own accord the launcher takes QEMU; a CPU model may be one of Bochs's."""
    nobody = {"id": "echo 1000", "apt-get": "exit 9"}
    done = machine(without=["bochs"], scripts=nobody, ENGINE="auto")
    assert "setup:   qemu-system-x86 " in done.stdout and "bochs" not in done.stdout


def test_a_cpu_model_may_need_bochs(machine):
    nobody = {"id": "echo 1000", "apt-get": "exit 9"}
    done = machine(without=["bochs"], scripts=nobody, ENGINE="auto", CPU="corei7_icelake_u")
    assert "setup:   qemu-system-x86 " in done.stdout and "setup:   bochs " in done.stdout


def test_not_root_and_no_sudo_prints_the_line_to_type(machine):
    done = machine(without=["nasm"], scripts={"id": "echo 1000", "apt-get": "exit 9"})
    assert done.returncode == 1
    assert "setup:   nasm                 to assemble" in done.stdout
    line = "  apt-get update && apt-get install -y --no-install-recommends nasm\n"
    assert done.stdout.endswith("type this, then try again:\n" + line)


def test_sudo_that_wants_a_password_where_nobody_can_type_one(machine):
    scripts = {"id": "echo 1000", "apt-get": "exit 9", "sudo": "exit 1"}
    done = machine(without=["xorriso", "nasm"], scripts=scripts)
    assert done.returncode == 1
    assert "sudo apt-get update && sudo apt-get install -y" in done.stdout
    assert done.stdout.rstrip().endswith(" nasm xorriso")


# An apt-get that knows packages only after `update`, and notes each call.
APT = """
echo "$DEBIAN_FRONTEND $*" >>"$LOG"
case "$*" in
*update*) : >"$LOG.updated" ;;
*) [ -e "$LOG.updated" ] || exit 100; INSTALL ;;
esac
"""


def test_root_installs_after_a_refresh_where_that_is_needed(machine, tmp_path):
    install = 'echo "#!/bin/bash" >"${PATH}/nasm" && chmod +x "${PATH}/nasm"'
    scripts = {"id": "echo 0", "apt-get": APT.replace("INSTALL", install)}
    done = machine(without=["nasm"], scripts=scripts)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("setup: installing nasm\nsetup: done\n")
    calls = (tmp_path / "log").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["noninteractive"] * 3
    assert ["update" in call for call in calls] == [False, True, False]
    assert calls[2].endswith("install -y --no-install-recommends nasm")


def test_an_install_that_brings_nothing_is_noticed(machine):
    scripts = {"id": "echo 0", "apt-get": APT.replace("INSTALL", ":")}
    done = machine(without=["nasm"], scripts=scripts)
    assert done.returncode == 1
    assert "these are not to be found: nasm" in done.stdout


def test_an_install_that_fails_shows_why(machine):
    scripts = {"id": "echo 0", "apt-get": "echo E: no network; exit 100"}
    done = machine(without=["nasm"], scripts=scripts)
    assert done.returncode == 1
    assert "E: no network" in done.stdout
    assert "apt-get install -y --no-install-recommends nasm" in done.stdout


def test_no_apt(machine):
    done = machine(without=["nasm"])
    assert done.returncode == 1
    assert "this machine has no apt-get; install what stands for these Debian packages: nasm" in (
        done.stdout
    )
