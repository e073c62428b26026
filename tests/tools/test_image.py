"""The image builder: what GRUB is told, and what is refused."""

import os
import subprocess
import sys

import pytest

import image
from support import ROOT, TOOLS

BUILD_FOLDER = os.path.join(ROOT, "build")


def test_words_survive_grubs_shell():
    config = image.configuration("reserve=64M", [("/modules/0", "hello mem=16M -- a;b $x 'y'")])
    assert "multiboot2 /quire.elf 'reserve=64M'\n" in config
    assert "module2 /modules/0 'hello' 'mem=16M' '--' 'a;b' '$x' ''\\''y'\\'''\n" in config


def test_files_that_a_configuration_names():
    config = " multiboot2 /quire.elf a\nmodule2 /guests/x.elf x mem=1M\n# module2 /no\nboot\n"
    assert image.files_of(config, "build") == {
        "/quire.elf": "build/quire.elf",
        "/guests/x.elf": "build/guests/x.elf",
    }


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(image.ImageError, match="there is no hypervisor .*/none.elf"):
        image.build_image(str(tmp_path / "x.iso"), str(tmp_path / "none.elf"))


def run(folder, *options):
    command = [sys.executable, os.path.join(TOOLS, "image.py"), "build", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_what_is_built_is_found_from_any_folder(tmp_path):
    done = run(tmp_path, "--cmdline", "x=1", "-o", "x.iso", "--module", "none.elf:none")
    assert done.returncode == 1
    assert done.stderr == "image: there is no module none.elf\n"


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--elf", "x.elf"], "there is no hypervisor x.elf: `make` builds build/quire.elf, --elf names another"),
        (["--module", ":hello"], "--module ':hello' names no file: it is FILE:COMMAND LINE"),
        (["--config", "no.cfg"], "no.cfg: No such file or directory"),
        (["--elf", "{here}", "-o", "none/x.iso"], "there is no folder none to write x.iso into"),
    ],
)
def test_what_cannot_be_built_says_why(tmp_path, options, sentence):
    here = tmp_path / "here.elf"
    here.write_bytes(b"x")
    done = run(tmp_path, "-o", "x.iso", *(each.format(here=here) for each in options))
    assert done.returncode == 1
    assert done.stderr.startswith(f"image: {sentence}"), done.stderr
    assert not (tmp_path / "x.iso").exists()


def test_the_configuration_names_files_of_the_build(tmp_path):
    (tmp_path / "grub.cfg").write_text("multiboot2 /none.elf\n")
    done = run(tmp_path, "--config", "grub.cfg", "-o", "x.iso")
    assert done.returncode == 1
    assert done.stderr == f"image: grub.cfg loads /none.elf, and there is no file {BUILD_FOLDER}/none.elf\n"


def test_help_says_what_the_options_are(tmp_path):
    said = " ".join(run(tmp_path, "--help").stdout.split())
    assert "--elf ELF the hypervisor's image, what `make` builds (" in said
