#!/usr/bin/python3
"""Writes docs/monitor.schema.json: what the console answers with `--json`, as a JSON Schema.

    tools/schema.py [-o docs/monitor.schema.json]

The shape of a line is stated here; the record types with their columns are read out of the console's
own sources after the preprocessor has been over them, so that none can be forgotten.
"""

import argparse
import glob
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCHEMA = os.path.join(ROOT, "docs", "monitor.schema.json")

# What a value of each kind of column is, when it applies.
VALUES = {
    "COLUMN_TEXT": "text",
    "COLUMN_NUMBER": "count",
    "COLUMN_HEX": "hex",
    "COLUMN_SIZE": "bytes",
    "COLUMN_FRAMES": "frames",
    "COLUMN_FLAG": "flag",
}

DEFINITIONS = {
    "text": {"type": ["string", "null"], "description": "null: does not apply, or is not known"},
    "count": {"type": ["integer", "null"], "minimum": 0},
    "hex": {
        "type": ["string", "null"],
        "pattern": "^0x(0|[1-9a-f][0-9a-f]{0,15})$",
        "description": "an address or a raw value",
    },
    "bytes": {"type": ["integer", "null"], "minimum": 0, "description": "a size in bytes"},
    "frames": {"type": ["integer", "null"], "minimum": 0, "description": "frames of 4 KiB"},
    "flag": {"type": ["boolean", "null"]},
    "code": {"type": "string", "pattern": "^E_[A-Z_]+$", "description": "see lib/error.h"},
}


def strings(text):
    """The value of adjacent C string literals."""
    return "".join(json.loads(each) for each in re.findall(r'"(?:[^"\\]|\\.)*"', text))


def outer_braces(text, start):
    """The contents of the brace that opens at `start`, and where it ends."""
    depth, at, quoted = 0, start, False
    while True:
        char = text[at]
        if quoted:
            at += char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[start + 1 : at], at + 1
        at += 1


def groups(text):
    """The braces that stand side by side in a text."""
    found, at = [], text.find("{")
    while at >= 0:
        inside, at = outer_braces(text, at)
        found.append(inside)
        at = text.find("{", at)
    return found


def key_of(name):
    """As column_key() in monitor/output.c."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def columns_of(text):
    """Columns as {key: kind} out of an initialiser's inside."""
    columns = {}
    for each in groups(text):
        kind = re.search(r"COLUMN_[A-Z]+", each).group(0)
        key = key_of(strings(each))
        if key in columns:
            raise ValueError(f"two columns of one record are called {key}")
        columns[key] = VALUES[kind]
    return columns


def records_of(source):
    """(name, columns) of every record type in a preprocessed source."""
    arrays, found = {}, []
    for match in re.finditer(r"const struct column (\w+)((?:\[[^]]*\])+)\s*=\s*(?=\{)", source):
        inside, _ = outer_braces(source, match.end())
        if match.group(2).count("[") == 2:
            for index, each in enumerate(groups(inside)):
                arrays[f"{match.group(1)}[{index}]"] = columns_of(each)
        else:
            arrays[match.group(1)] = columns_of(inside)
    for match in re.finditer(r"const struct record \w+(\[[^]]*\])?\s*=\s*(?=\{)", source):
        inside, _ = outer_braces(source, match.end())
        for each in groups(inside) if match.group(1) else [inside]:
            name, columns = re.match(r'\s*\.name = ((?:"[^"]*"\s*)+), \.column = ([\w\[\]]+)\s*,', each).groups()
            found.append((strings(name), arrays[columns]))
    return found


def preprocessed(path):
    command = ["gcc", "-E", "-P", "-std=gnu11", "-ffreestanding", "-I.", path]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def all_records():
    """{name: [columns, ...]}: types of one name may differ in their columns."""
    records = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "monitor", "*.c"))):
        for name, columns in records_of(preprocessed(path)):
            shapes = records.setdefault(name, [])
            if columns not in shapes:
                shapes.append(columns)
    return dict(sorted(records.items()))


def reference(name):
    return {"$ref": f"#/$defs/{name}"}


def record_object(name, columns):
    return {
        "type": "object",
        "properties": {
            "kind": {"enum": ["row", "facts"]},
            "record": {"const": name},
            "values": {
                "type": "object",
                "properties": {key: reference(kind) for key, kind in columns.items()},
                "required": list(columns),
                "additionalProperties": False,
            },
        },
        "required": ["kind", "record", "values"],
        "additionalProperties": False,
    }


def text_object(kind, more=None):
    properties = {"kind": {"const": kind}, **(more or {}), "text": {"type": "string"}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def schema(records):
    shapes = [
        record_object(name, columns) for name, several in records.items() for columns in several
    ]
    end = {
        "type": "object",
        "properties": {
            "kind": {"const": "end"},
            "command": {"type": "string"},
            "code": reference("code"),
        },
        "required": ["kind", "command", "code"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of an answer of Quire's console, asked with --json",
        "description": "Records, titles, notes, quoted lines and errors in the order of the text "
        "form; `end` closes the answer of each command. Written by tools/schema.py.",
        "anyOf": [
            *(text_object(kind) for kind in ("title", "note", "quote")),
            text_object("error", {"code": reference("code")}),
            end,
            *shapes,
        ],
        "$defs": DEFINITIONS,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default=SCHEMA)
    options = parser.parse_args()
    text = json.dumps(schema(all_records()), indent=1) + "\n"
    with open(options.output, "w", encoding="ascii") as out:
        out.write(text)


if __name__ == "__main__":
    sys.exit(main())
