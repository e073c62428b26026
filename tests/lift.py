"""The installed memory manager, for tests that build the examples from it."""

import os
import shutil
import subprocess

from support import BUILD, ROOT

EXAMPLES = os.path.join(ROOT, "examples")


def environment(prefix="/nowhere"):
    """pkg-config finds the copy under `prefix` and no other; make is nobody's child."""
    dropped = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PKG_CONFIG_PATH")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PKG_CONFIG_LIBDIR": os.path.join(prefix, "lib", "pkgconfig")}


def run(*command, env=None, text=None):
    """What a command prints; the test fails, with that, when the command does."""
    done = subprocess.run(
        [str(word) for word in command],
        env=env or environment(),
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def install(prefix, *words):
    """`make install-mm` into the folder `prefix`."""
    run("make", "-s", "-C", ROOT, "install-mm", f"BUILD={os.path.relpath(BUILD, ROOT)}", f"PREFIX={prefix}", *words)


def make_example(name, prefix, folder, *words):
    """Makes an example in a copy of its folder, out of reach of this tree. What that prints."""
    copy = os.path.join(folder, name)
    shutil.copytree(os.path.join(EXAMPLES, name), copy, ignore=shutil.ignore_patterns("build"))
    return run("make", "-s", "-C", copy, *words, env=environment(prefix))
