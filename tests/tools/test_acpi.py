"""tools/acpi.py: tables that are wrong in themselves or with one another are refused, and what is wrong is named."""

import os
import shutil

import pytest

import acpi
from support import ROOT

SOURCES = os.path.join(ROOT, "vm", "acpi")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(SOURCES, tmp_path / "acpi")


def change(folder, name, before, after):
    path = folder / f"{name}.asl"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def refused(folder):
    with pytest.raises(acpi.TableError) as error:
        acpi.build(str(folder))
    return str(error.value)


def test_the_tables_as_they_are(folder):
    text = acpi.build(str(folder))
    for name, place in acpi.PLACES.items():
        assert f"{{{place:#x}, {name}, sizeof({name})}}," in text


def test_a_source_that_does_not_compile(folder):
    change(folder, "dsdt", "Device (RTC0)", "Divice (RTC0)")
    assert "iasl refuses" in refused(folder) and "dsdt.asl" in refused(folder)


def test_a_warning_is_an_error(folder):
    change(folder, "dsdt", 'Name (_HID, EisaId ("PNP0B00"))', "")
    assert "iasl refuses" in refused(folder)


def test_a_pointer_to_elsewhere(folder):
    change(folder, "xsdt", "E0200", "E0204")
    assert "xsdt points to ['0xe00c0', '0xe0204', '0xe02a0']" in refused(folder)


def test_a_table_that_is_not_listed(folder):
    change(folder, "rsdt", "[0004]                        HPET Address : 000E02A0\n", "")
    assert "rsdt points to" in refused(folder)


def test_tables_that_overlap(folder, monkeypatch):
    monkeypatch.setitem(acpi.PLACES, "apic", 0xE01C0)
    assert refused(folder) == "apic at 0xe01c0 lies within the table before it, which ends at 0xe01d4"


def test_tables_beyond_their_page(folder, monkeypatch):
    monkeypatch.setitem(acpi.PLACES, "dsdt", 0xE0F00)
    assert "the tables do not fit" in refused(folder)


def test_a_wrong_sum():
    with pytest.raises(acpi.TableError, match="hpet: its checksum is wrong"):
        acpi.check_sums({"hpet": b"HPET" + bytes(40)})
