"""Checks a value against a JSON Schema, of which it knows what docs/monitor.schema.json uses: type,
enum, const, pattern, minimum, properties, required, additionalProperties, anyOf, $ref to $defs. A
keyword that it does not know is an error, so that nothing is taken for checked that is not."""

import re

NOTES = {"$schema", "title", "description", "$defs"}
TYPES = {
    "object": dict,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "array": list,
}


class SchemaError(Exception):
    """The schema itself says something that is not understood."""


def _is(value, name):
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name not in TYPES:
        raise SchemaError(f"type {name!r}")
    return isinstance(value, TYPES[name])


def _same(value, wanted):
    """JSON tells true from 1, and so do we."""
    return type(value) is type(wanted) and value == wanted


def problems(value, schema, root=None, at="$"):
    """A list of sentences, empty when the value is what the schema asks for."""
    root = schema if root is None else root
    found = []
    for keyword, wanted in schema.items():
        if keyword in NOTES:
            continue
        if keyword == "$ref":
            found += problems(value, _resolve(root, wanted), root, at)
        elif keyword == "type":
            names = [wanted] if isinstance(wanted, str) else wanted
            if not any(_is(value, name) for name in names):
                found.append(f"{at}: {value!r} is no {' or '.join(names)}")
        elif keyword == "enum":
            if not any(_same(value, each) for each in wanted):
                found.append(f"{at}: {value!r} is none of {wanted}")
        elif keyword == "const":
            if not _same(value, wanted):
                found.append(f"{at}: {value!r} is not {wanted!r}")
        elif keyword == "pattern":
            if isinstance(value, str) and not re.search(wanted, value):
                found.append(f"{at}: {value!r} does not match {wanted!r}")
        elif keyword == "minimum":
            if _is(value, "integer") and value < wanted:
                found.append(f"{at}: {value!r} is below {wanted}")
        elif keyword == "anyOf":
            branches = [problems(value, each, root, at) for each in wanted]
            if all(branches):
                # The branch that fits best is the one that was meant.
                found += min(branches, key=len)
        elif keyword in ("properties", "required", "additionalProperties"):
            if isinstance(value, dict):
                found += _object(keyword, value, schema, root, at)
        else:
            raise SchemaError(f"keyword {keyword!r}")
    return found


def _object(keyword, value, schema, root, at):
    known = schema.get("properties", {})
    if keyword == "required":
        return [f"{at}: no {name!r}" for name in schema["required"] if name not in value]
    if keyword == "additionalProperties":
        if schema[keyword] is not False:
            raise SchemaError("additionalProperties can be false alone")
        return [f"{at}: {name!r} does not belong there" for name in value if name not in known]
    found = []
    for name in known:
        if name in value:
            found += problems(value[name], known[name], root, f"{at}.{name}")
    return found


def _resolve(root, reference):
    found = re.fullmatch(r"#/\$defs/(\w+)", reference)
    if not found or found.group(1) not in root.get("$defs", {}):
        raise SchemaError(f"reference {reference!r}")
    return root["$defs"][found.group(1)]


def kinds_of(schema, record, values):
    """What each value of a record is, by the schema's names: {"first": "hex", ...}. None when the
    schema has no such record with such values."""
    for shape in schema["anyOf"]:
        properties = shape["properties"]
        if properties.get("record") == {"const": record}:
            columns = properties["values"]["properties"]
            if set(columns) == set(values):
                return {key: each["$ref"].rsplit("/", 1)[1] for key, each in columns.items()}
    return None
