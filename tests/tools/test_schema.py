"""The schema of the console's answers, and the validator that the whole-machine tests hold them to."""

import json
import os
import subprocess
import sys

import pytest

import schema as schema_tool
from quire_machine import answers, validate
from support import ROOT, TOOLS

with open(os.path.join(ROOT, "docs", "monitor.schema.json"), encoding="ascii") as text:
    SCHEMA = json.load(text)

ROW = {"kind": "row", "record": "exit", "values": {"exit": "HLT", "count": 3}}


def test_the_schema_is_that_of_the_sources(tmp_path):
    fresh = tmp_path / "schema.json"
    subprocess.run([sys.executable, os.path.join(TOOLS, "schema.py"), "-o", fresh], check=True)
    assert json.loads(fresh.read_text()) == SCHEMA, "run `make schema`"


def test_every_record_in_the_sources_is_found():
    written = 0
    for name in os.listdir(os.path.join(ROOT, "monitor")):
        if name.endswith(".c"):
            with open(os.path.join(ROOT, "monitor", name), encoding="ascii") as source:
                written += source.read().count("RECORD(\"")
    assert sum(len(shapes) for shapes in schema_tool.all_records().values()) >= written // 2 > 10


GOOD = [
    ROW,
    {"kind": "row", "record": "exit", "values": {"exit": None, "count": None}},
    {"kind": "title", "text": ""},
    {"kind": "note", "text": "x"},
    {"kind": "quote", "text": "\x1b"},
    {"kind": "error", "code": "E_NOENT", "text": "there is no g9"},
    {"kind": "end", "command": "mem", "code": "E_OK"},
]

BAD = [
    [],
    "text",
    {},
    {**ROW, "kind": "line"},
    {**ROW, "more": 1},
    {**ROW, "record": "no such record"},
    {**ROW, "values": {"exit": "HLT"}},
    {**ROW, "values": {"exit": "HLT", "count": "3"}},
    {**ROW, "values": {"exit": "HLT", "count": -1}},
    {**ROW, "values": {"exit": "HLT", "count": True}},
    {**ROW, "values": {"exit": 1, "count": 3}},
    {**ROW, "values": {"exit": "HLT", "count": 3, "more": 0}},
    {"kind": "row", "record": "control", "values": dict.fromkeys(("cr0", "cr3", "cr4", "efer"), "1")},
    {"kind": "row", "record": "control", "values": dict.fromkeys(("cr0", "cr3", "cr4", "efer"), "0x01")},
    {"kind": "title"},
    {"kind": "title", "text": 5},
    {"kind": "error", "text": "no code"},
    {"kind": "error", "code": "sorry", "text": "x"},
    {"kind": "end", "command": "mem"},
]


@pytest.mark.parametrize("value", GOOD)
def test_valid(value):
    assert validate.problems(value, SCHEMA) == []


@pytest.mark.parametrize("value", BAD)
def test_invalid(value):
    assert validate.problems(value, SCHEMA) != []


@pytest.mark.parametrize(
    "schema", [{"maxLength": 3}, {"type": "number"}, {"$ref": "#/$defs/none"}, {"additionalProperties": {}}]
)
def test_what_the_validator_does_not_know_is_an_error(schema):
    with pytest.raises(validate.SchemaError):
        validate.problems({}, schema)


@pytest.mark.parametrize(
    "count, text",
    [(0, "0B"), (1000, "1000B"), (1024, "1K"), (1 << 20, "1M"), (1023 << 20, "1023M"), (636 << 10, "636K")]
    + [(5 << 30, "5G"), (1 << 40, "1T"), (16000 << 10, "15.6M"), (10239 << 10, "10.0M")],
)
def test_sizes_in_words(count, text):
    assert answers.size_text(count) == text


def test_an_answer():
    lines = ["[g1 spin] {", json.dumps(ROW), "quire: a line of the log", '{"kind":"note","text":"n"}']
    answer = answers.Answer.of(lines)
    assert not answer.complete
    assert answer.facts("exit") == {"exit": "HLT", "count": 3}
    assert answer.notes == ["n"] and answer.errors == []
    answer = answers.Answer.of(['{"kind":"end","command":"x","code":"E_NOENT"}'])
    assert answer.complete and not answer.ok and answer.code == "E_NOENT"
    assert answers.address("0x1f") == 31 and answers.address(None) is None
