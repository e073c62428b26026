"""The list of breaks: how a block is read, and how a break finds its place in a file."""

import os
import sys

import pytest

from support import TOOLS

ROOT = os.path.dirname(os.path.abspath(TOOLS))
sys.path.insert(0, os.path.join(ROOT, "tests/mutants"))

import anchor  # noqa: E402
import mapper  # noqa: E402
import product  # noqa: E402
import run  # noqa: E402

SOURCE = """#define MOST 8
#define SUM(a, b)                                                                                  \\
    ((a) + (b))

int first(int a);
int second(int a, struct table *t);

struct thing {
    int many;
};

static const struct thing one_thing = {
    .many = 3,
};

WALKER int first(int a)
{
    if (a)
        return second(a, 0);
    return second(1, 0);
}

static __attribute__((noinline)) int second(int a,
                                            struct table *t)
{
    for (int i = 0; i < MOST; i++)
        t->count += a + first(
            i);
    return a;
}
"""


def block(at, pairs, name="a break"):
    return f"# {name}\nat: a.c: {at}\nmeans: something\n{pairs}\n"


def broken(at, pairs):
    (mutant,) = anchor.parse(block(at, pairs))
    return mutant.apply(SOURCE)


def test_a_block_is_read():
    (one, two) = anchor.parse("For people.\n\n" + block("f", "- old\n+ new") + "\n" + block("g", "-2 x y\n+", "b"))
    assert (one.name, one.file, one.function, one.means) == ("a break", "a.c", "f", "something")
    assert one.changes == [["old", 0, "new"]]
    assert two.changes == [["x y", 2, ""]]


@pytest.mark.parametrize(
    "text",
    [
        "# a\nmeans: m\n- a\n+ b\n",
        "# a\nat: f.c: f\n- a\n+ b\n",
        "# a\nat: f.c: f\nmeans: m\n",
        "# a\nat: f.c: f\nmeans: m\n- a\n",
        "# a\nat: f.c: f\nmeans: m\n+ b\n",
        "# a\nat: f.c: f\nmeans: m\n- a\n+ b\n+ c\n",
        "# a\nat: f.c f\nmeans: m\n- a\n+ b\n",
        block("f", "- a\n+ b") * 2,
        block("f", "- a\n+ b") + "something else\n",
    ],
)
def test_a_block_that_is_not_whole_is_refused(text):
    with pytest.raises(SystemExit):
        anchor.parse(text)


def test_only_the_function_is_changed():
    assert broken("second", "- return a;\n+ return 0;") == SOURCE.replace("return a;", "return 0;")
    assert broken("first", "- if (a)\n+ if (!a)") == SOURCE.replace("if (a)", "if (!a)")


def test_lines_do_not_matter():
    assert broken("second", "- first( i);\n+ 0;") == SOURCE.replace("first(\n            i);", "0;")


def test_several_pairs_and_the_second_of_two():
    changed = broken("first", "-2 return\n+ (void)\n- if (a) return\n+ return")
    assert changed == SOURCE.replace("if (a)\n        return", "return").replace(
        "    return second(1", "    (void) second(1"
    )


def test_what_is_no_function():
    assert broken("one_thing", "- 3\n+ 4") == SOURCE.replace("= 3", "= 4")
    assert broken("thing", "- int many\n+ long many") == SOURCE.replace("int many", "long many")
    assert broken("MOST", "- 8\n+ 9") == SOURCE.replace("MOST 8", "MOST 9")
    assert broken("SUM", "- +\n+ -") == SOURCE.replace("(a) + (b)", "(a) - (b)")


@pytest.mark.parametrize(
    "at, pairs",
    [
        ("third", "- a\n+ b"),  # no such function
        ("first", "- i < MOST\n+ true"),  # in another one
        ("first", "- second\n+ first"),  # twice
        ("first", "-3 second\n+ first"),
    ],
)
def test_what_has_no_place_does_not_apply(at, pairs):
    with pytest.raises(anchor.Misplaced):
        broken(at, pairs)


ASSEMBLY = """global enter
enter:
        mov rax, rdx
.again: dec rax
        jnz .again
leave:
        mov rax, rdx
"""


def test_a_label_of_assembly():
    (mutant,) = anchor.parse(block("enter", "- mov rax, rdx\n+").replace("a.c", "a.asm"))
    assert mutant.apply(ASSEMBLY) == ASSEMBLY.replace("mov rax, rdx", "", 1)
    for label in ("again", "third"):
        (mutant,) = anchor.parse(block(label, "- rax\n+ rbx").replace("a.c", "a.asm"))
        with pytest.raises(anchor.Misplaced):
            mutant.apply(ASSEMBLY)


def in_product(tmp_path, monkeypatch, test):
    (tmp_path / "some.txt").write_text(block("f", f"- a\n+ b\n{test}"))
    monkeypatch.setattr(product, "LISTS", str(tmp_path))
    return product.load()


def test_the_tests_that_must_notice_are_named(tmp_path, monkeypatch):
    (mutant,) = in_product(tmp_path, monkeypatch, "by: unit svm\nby: emulator test_svm.py -k spinning")
    assert mutant.tests == ["unit svm", "emulator test_svm.py -k spinning"]
    for wrong in ("", "by: hope"):
        with pytest.raises(SystemExit):
            in_product(tmp_path, monkeypatch, wrong)


def test_the_lists_apply(monkeypatch):
    monkeypatch.chdir(ROOT)
    for mutant in mapper.load() + product.load():
        with open(mutant.file, encoding="utf-8") as file:
            text = file.read()
        assert mutant.apply(text) != text, mutant.name


def test_some_of_them():
    hosted, booted = anchor.parse(block("f", "- a\n+ b\nby: unit x") + block("g", "- a\n+ b\nby: nested y", "another"), "z/svm.txt")
    both = [hosted, booted]
    assert run.chosen(both, "", "") == both
    assert run.chosen(both, "svm.txt", "") == both
    assert run.chosen(both, "", "unit") == [hosted]
    assert run.chosen(both, "no such text", "") == []


def test_a_variable_of_a_structure_without_a_name():
    text = "static const struct {\n    int a;\n} wishes[] = {\n    {1},\n};\n"
    first, end = anchor.definition(text, "wishes")
    assert text[first:end] == "} wishes[] = {\n    {1},\n};"
