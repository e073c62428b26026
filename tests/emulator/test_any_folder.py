"""Quire in a folder with a name that shells, make and emulators could stumble over."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from support import BUILD, ROOT

pytestmark = pytest.mark.one_vendor(
    "the folders' names are tried on the launcher and on both emulators, guests run in the quick one"
)

NAMES = ["a b", """it's "c", $HOME; #1 (x)"""]
PRODUCTS = ("image", "guests", "quire.elf", "quire.iso")


def no_products(folder, names):
    return [each for each in names if folder == ROOT and (each == ".git" or each.startswith("build"))]


@pytest.fixture(params=NAMES)
def tree(request, tmp_path, monkeypatch):
    """A copy of the sources and of what is built of them, as old as they are: nothing is built anew."""
    for name in ("ENGINE", "CPU", "MEMORY", "CMDS", "PATIENCE", "QUIRE_BUILD", "QUIRE_SOCKET", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENGINE", "qemu")
    folder = tmp_path / request.param
    # What an emulator writes goes into such a folder as well.
    monkeypatch.setenv("TMPDIR", str(tmp_path / (request.param + " tmp")))
    os.mkdir(os.environ["TMPDIR"])
    shutil.copytree(ROOT, folder, ignore=no_products, symlinks=True)
    os.mkdir(folder / "build")
    for name in PRODUCTS:
        source = os.path.join(BUILD, name)
        if os.path.isdir(source):
            shutil.copytree(source, folder / "build" / name)
        else:
            shutil.copy2(source, folder / "build")
    return folder


def run(folder, *command, **more):
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more
    )


@pytest.mark.seconds(600)
def test_every_command(tree):
    environment = {**os.environ, "CMDS": "version; guests"}
    done = run(tree, "make", "run", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quire: guests: 6 of 6 as expected" in done.stdout

    done = run(tree, "tools/quire", "ask", "version")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["code"] == "E_OK"

    # From elsewhere, by its whole path.
    tools = tree / "tools"
    made = [sys.executable, str(tools / "image.py"), "build", "--module", f"{tree}/build/guests/hello.elf:hello"]
    done = run("/", *made, "-o", str(tree / "one.iso"))
    assert done.returncode == 0, done.stderr
    done = run("/", sys.executable, str(tools / "launch.py"), str(tree / "one.iso"), "--cmds", "guests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quire: guests: 1 of 1 as expected" in done.stdout
    done = run("/", sys.executable, str(tools / "launch.py"), str(tree / "one.iso"), "--cmds", "mem",
               "--engine", "bochs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(os.listdir(os.environ["TMPDIR"])) == []


@pytest.mark.seconds(600)
def test_in_the_background(tree):
    quire = str(tree / "tools" / "quire")
    started = run("/", quire, "start")
    assert started.returncode == 0, started.stderr
    done = run("/", quire, "ask", "--text", "guests")
    assert done.returncode == 0 and "6 of 6 ended" in done.stdout, done.stderr
    assert run("/", quire, "stop").returncode == 0


def test_names_that_make_cannot_take():
    for setting in ("BUILD=a b", "PREFIX=/tmp/a b"):
        name = setting.split("=")[0]
        done = run(ROOT, "make", "-n", "install-mm", setting)
        assert done.returncode == 2
        assert f"{name} has a blank in it, which make cannot take" in done.stderr, done.stderr
