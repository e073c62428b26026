"""The image builder: what GRUB is told, and what is refused."""

import pytest

import image


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
    with pytest.raises(image.ImageError, match="/quire.elf: there is no file .*/none.elf"):
        image.build_image(str(tmp_path / "x.iso"), str(tmp_path / "none.elf"))
