"""The breaks of tests/mutants/list.txt: how they are written down, and how they find their place.

A block is

    # a name
    at: file: function
    means: what is wrong then
    - a piece of the function's text
    + what it becomes

`at` may name a variable, a structure or a macro instead; the place is looked for within its
definition alone, so that a change elsewhere breaks nothing. The piece is one line, whatever lines
the source has it on: a space stands for any white space. It must occur there once; `-2` means the
second of several. A `+` alone removes it. A block may have several pairs, one after the other.
In assembly the function is a label, and its definition ends before the next that is not local.

`by:` lines name tests that must notice; product.py has them.
"""

import re


class Misplaced(Exception):
    """A break does not apply."""


class Mutant:
    def __init__(self, name, file, function, means, changes):
        self.name, self.file, self.function, self.means = name, file, function, means
        self.changes = changes  # (old, nth or 0, new)
        self.list = ""  # the file that it is written down in
        self.tests = []
        self.result = None  # "killed", or what is wrong
        self.by = ""

    def apply(self, text):
        """The file's text with the break in it."""
        find = labelled if self.file.endswith(".asm") else definition
        first, end = find(text, self.function)
        part = text[first:end]
        for old, nth, new in self.changes:
            part = replace(part, old, nth, new)
        return text[:first] + part + text[end:]


def definition(text, name):
    """Where the definition of a function, variable, structure or macro begins and ends."""
    word = re.escape(name)
    found = [
        # The text between a function's parameters and its body has no semicolon.
        *re.finditer(rf"^[A-Za-z_][^;{{}}#]*?\b{word}\)?\s*\([^;{{}}]*\)\s*\n?{{.*?^}}", text, re.M | re.S),
        # The other end of a structure without a name may stand before a variable's.
        *re.finditer(rf"^(?:[A-Za-z_]|}}(?= ))[^;{{}}#\n]*\b{word}(\[[^\n]*\])? = {{.*?^}};", text, re.M | re.S),
        *re.finditer(rf"^(struct|enum) {word} {{.*?^}}", text, re.M | re.S),
        *re.finditer(rf"^#define {word}\b([^\n]*\\\n)*[^\n]*$", text, re.M),
    ]
    if len(found) != 1:
        raise Misplaced(f"{name} is defined {len(found)} times")
    return found[0].span()


def labelled(text, name):
    """From a label of assembly to the next that is not local."""
    found = [*re.finditer(rf"^{re.escape(name)}:.*?(?=^[A-Za-z_]\w*:|\Z)", text, re.M | re.S)]
    if len(found) != 1:
        raise Misplaced(f"the label {name} is there {len(found)} times")
    return found[0].span()


def replace(text, old, nth, new):
    pattern = r"\s+".join(re.escape(word) for word in old.split())
    places = list(re.finditer(pattern, text))
    if nth > len(places) or (nth == 0 and len(places) != 1):
        raise Misplaced(f"`{old}` occurs {len(places)} times")
    place = places[nth - 1 if nth else 0]
    return text[: place.start()] + new + text[place.end() :]


def parse(text, path="list.txt"):
    """All blocks; SystemExit says which line is not understood."""
    mutants, lines = [], text.splitlines()
    block = None
    for number, line in enumerate(lines, 1):
        if line.startswith("# "):
            block = Mutant(line[2:], None, None, None, [])
            block.list = path
            mutants.append(block)
        elif not line.strip() or block is None:
            continue  # what stands before the first block is for people
        elif at := re.fullmatch(r"at: (\S+): (\w+)", line):
            block.file, block.function = at.groups()
        elif line.startswith("means: "):
            block.means = line[7:]
        elif line.startswith("by: "):
            block.tests.append(line[4:])
        elif minus := re.fullmatch(r"-(\d*) (.*\S.*)", line):
            block.changes.append([minus[2], int(minus[1] or 0), None])
        elif (plus := re.fullmatch(r"\+( .*)?", line)) and block.changes and block.changes[-1][2] is None:
            block.changes[-1][2] = (plus[1] or " ")[1:]
        else:
            raise SystemExit(f"{path}:{number}: not understood: {line}")
    for mutant in mutants:
        whole = mutant.file and mutant.means and mutant.changes
        if not whole or any(new is None for _, _, new in mutant.changes):
            raise SystemExit(f"{path}: {mutant.name}: at, means, or a pair of - and + is missing")
    names = [mutant.name for mutant in mutants]
    for name in names:
        if names.count(name) > 1:
            raise SystemExit(f"{path}: two breaks are named {name}")
    return mutants
