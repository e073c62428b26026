"""docs/ADD-A-KIND.md names every place that tells one table kind from another."""

import os
import re

from support import ROOT

FOLDERS = ["mm", "tests/property", "tests/fuzz", "tests/bench"]
OF_A_KIND = re.compile(r"\b(ept_kind|KIND_EPT|SDM_EPT|PURPOSE_EPT_TABLE)\b")
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def places():
    for top in FOLDERS:
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith((".c", ".h")) and "buddy" not in name:
                    with open(path, encoding="utf-8") as source:
                        if OF_A_KIND.search(COMMENT.sub("", source.read())):
                            yield os.path.relpath(path, ROOT)


def test_each_place_is_named():
    with open(os.path.join(ROOT, "docs", "ADD-A-KIND.md"), encoding="utf-8") as page:
        text = page.read()
    found = list(places())
    assert "mm/paging/kind.h" in found
    assert [each for each in found if f"`{each}`" not in text] == []


def test_each_named_file_is_there():
    with open(os.path.join(ROOT, "docs", "ADD-A-KIND.md"), encoding="utf-8") as page:
        named = re.findall(r"`((?:mm|tests|monitor|arch)/[\w/]+\.\w+)`", page.read())
    assert len(named) > 20
    assert [each for each in named if not os.path.exists(os.path.join(ROOT, each))] == []
