"""Each whole-machine test says by which vendor its guests run (tests/emulator/conftest.py)."""

import os
import subprocess
import sys

from support import ROOT


def collect(folder):
    command = [sys.executable, "-B", "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", folder]
    where = os.pathsep.join(os.path.join(ROOT, each) for each in ("tools", "tests"))
    environment = {**os.environ, "PYTHONPATH": where}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_each_test_has_a_mark():
    done = collect(os.path.join(ROOT, "tests", "emulator"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_one_without_is_named(tmp_path):
    for name in ("conftest.py", "machines.py"):
        os.symlink(os.path.join(ROOT, "tests", "emulator", name), tmp_path / name)
    (tmp_path / "test_silent.py").write_text("def test_without_a_mark():\n    pass\n")
    done = collect(str(tmp_path))
    assert done.returncode != 0
    assert "test_silent.py::test_without_a_mark" in done.stderr
