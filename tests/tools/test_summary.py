"""The summary of a test run: nothing that failed, crashed or is not there may count as passed."""

import os
import subprocess

from support import TOOLS

PASSING = """[==========] Running 2 test(s).
[ RUN      ] one
[       OK ] one
[ RUN      ] two
[       OK ] two
[==========] 2 test(s) run.
[  PASSED  ] 2 test(s).
exit status 0
"""
FAILING = """[ RUN      ] one
[       OK ] one
[ RUN      ] two
[  ERROR   ] --- 1 != 2
[  FAILED  ] two
[  PASSED  ] 1 test(s).
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] two

 1 FAILED TEST(S)
exit status 1
"""
CRASHED = """[ RUN      ] one
[       OK ] one
[ RUN      ] two
Segmentation fault
exit status 139
"""
SKIPPED = """[==========] Running 2 test(s).
[ RUN      ] one
[       OK ] one
[ RUN      ] two
no such thing on this system
[  SKIPPED ] two
[==========] 2 test(s) run.
[  PASSED  ] 1 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] two

 1 SKIPPED TEST(S)
exit status 0
"""
LEAKED = PASSING.replace("exit status 0", "ERROR: LeakSanitizer\nexit status 1")
JUNIT = """<testsuites><testsuite><testcase classname="a" name="one"/>
<testcase classname="a" name="two"><skipped message="no"/></testcase>{}</testsuite></testsuites>"""
JUNIT_FAILED = '<testcase classname="a" name="three"><failure>assert 1 == 2</failure></testcase>'


def summary(tmp_path, *results):
    """Runs the tool over results given as (name, content or None); returns status and lines."""
    words = []
    for name, content in results:
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        words += [path.stem, str(path), "--"]
    done = subprocess.run(
        ["/usr/bin/python3", os.path.join(TOOLS, "summary.py"), *words[:-1]],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()


def test_all_passed(tmp_path):
    status, lines = summary(tmp_path, ("unit.log", PASSING), ("emulator.xml", JUNIT.format("")))
    assert status == 0
    assert lines == [
        "unit           2 passed, 0 failed",
        "emulator       1 passed, 0 failed, 1 skipped",
        "3 passed, 0 failed",
    ]


def test_failures_are_shown_and_counted(tmp_path):
    junit = JUNIT.format(JUNIT_FAILED)
    status, lines = summary(tmp_path, ("unit.log", FAILING), ("emulator.xml", junit))
    assert status == 1
    assert lines[-1] == "2 passed, 2 failed"
    assert "    [  ERROR   ] --- 1 != 2" in lines
    assert "--- a.three" in lines and "    assert 1 == 2" in lines


def test_a_skipped_test_is_counted_once(tmp_path):
    """cmocka names it as it runs and once more in the list at the end."""
    status, lines = summary(tmp_path, ("unit.log", SKIPPED))
    assert (status, lines[0]) == (0, "unit           1 passed, 0 failed, 1 skipped")


def test_a_crash_fails_the_test_it_was_in(tmp_path):
    assert summary(tmp_path, ("unit.log", CRASHED))[1][-1] == "1 passed, 1 failed"


def test_a_leak_at_the_end_is_a_failure(tmp_path):
    assert summary(tmp_path, ("unit.log", LEAKED))[1][-1] == "2 passed, 1 failed"


def test_a_result_that_is_not_there_is_a_failure(tmp_path):
    for result in [("unit.log", None), ("emulator.xml", None), ("unit.log", ""), ("a.xml", "<x")]:
        status, lines = summary(tmp_path, result)
        assert (status, lines[-1]) == (1, "0 passed, 1 failed")
