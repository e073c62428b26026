"""Breaks of the mapper, which its own tests, TESTS, must notice.

The breaks are in tests/mutants/list.txt. `world` are the files that the tests of tests/property are
linked with, `flush` those of tests/unit/test_flush.c. Each break is built in a folder of its own beside an
untouched tree (a changed header is found before the true one) with one test after the other, until one
fails.
"""

import concurrent.futures
import glob
import os
import resource
import shutil
import signal
import subprocess
import sys

import anchor
import cmocka

LIST = "tests/mutants/list.txt"
# With their arguments; the quickest to notice comes first.
TESTS = {"mapper_rounds": [], "mapper_entries": [], "mapper_conformance": ["30"], "flush": []}
CFLAGS = "-std=gnu11 -DQUIRE_HOSTED -w".split()
SECONDS = 40  # of CPU time, for one test program: a break may well loop for ever


def sources_of(test, arguments):
    """All that a test program is linked from: test_mapper_rounds.c, rounds_*.c and the world."""
    if test == "flush":
        return ["tests/unit/test_flush.c", *arguments.flush]
    parts = glob.glob(f"tests/property/{test.removeprefix('mapper_')}_*.c")
    return [f"tests/property/test_{test}.c", *sorted(parts), *arguments.world]


def object_of(folder, source):
    return f"{folder}/{source.replace('/', '_')}.o"


def compile_one(folder, source, overlay=None):
    """Compiles a source, or its changed version; returns an error's text or None."""
    target = object_of(folder, source)
    include = [f"-I{overlay}"] if overlay else []
    changed = f"{overlay}/{source}" if overlay else ""
    path = changed if overlay and os.path.exists(changed) else source
    # What changes each time is compiled fast, the world around it to run fast.
    command = ["gcc", *CFLAGS, "-O0" if overlay else "-O1", *include, "-I.", "-MMD", "-c", path, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr if done.returncode else None


def depends_on(folder, source, file):
    with open(object_of(folder, source)[:-2] + ".d", encoding="utf-8") as rule:
        return file in rule.read().replace("\\\n", " ").replace("./", "").split()


def link(objects, target):
    done = subprocess.run(
        ["gcc", *objects, "-lcmocka", "-o", target], capture_output=True, text=True
    )
    return done.stderr if done.returncode else None


def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_test(program, test):
    """What the test says when it fails; None when it passes."""
    at_once = {**os.environ, "CMOCKA_TEST_ABORT": "1"}
    done = subprocess.run([program, *TESTS[test]], capture_output=True, text=True, preexec_fn=limit, env=at_once)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"still running after {SECONDS} s"
    if done.returncode == 0:
        return None
    said = (done.stderr + done.stdout).replace(f"{os.path.dirname(program)}/tree/", "")
    return cmocka.complaint(said, done.returncode)


def broken(mutant):
    """The text of the mutant's file with the break in it."""
    with open(mutant.file, encoding="utf-8") as file:
        return mutant.apply(file.read())


def try_one(base, mutant, number, arguments):
    try:
        text = broken(mutant)
    except (anchor.Misplaced, OSError) as why:
        mutant.result = f"does not apply: {why}"
        return
    folder = f"{base}/{number}"
    overlay = f"{folder}/tree"
    os.makedirs(os.path.dirname(f"{overlay}/{mutant.file}"), exist_ok=True)
    with open(f"{overlay}/{mutant.file}", "w", encoding="utf-8") as file:
        file.write(text)
    objects = {}
    for test in TESTS:
        sources = sources_of(test, arguments)
        for source in sources:
            if source in objects:
                continue
            objects[source] = object_of(f"{base}/true", source)
            if depends_on(f"{base}/true", source, mutant.file):
                error = compile_one(folder, source, overlay)
                if error:
                    mutant.result = "does not compile: " + error.strip().splitlines()[0]
                    return
                objects[source] = object_of(folder, source)
        program = f"{folder}/{test}"
        error = link([objects[source] for source in sources], program)
        if error:
            mutant.result = "does not link: " + error.strip().splitlines()[0]
            return
        said = run_test(program, test)
        os.remove(program)
        if said:
            said = said.replace(f"{os.path.abspath(overlay)}/", "").replace(f"{overlay}/", "")
            mutant.result, mutant.by = "killed", f"{test}: {said}"
            break
    else:
        mutant.result = "SURVIVES"
    shutil.rmtree(folder)


def snapshot(base):
    """A copy of what is built, so that an edit meanwhile is no mutant; everything happens there."""
    tree = f"{base}/source"
    shutil.rmtree(base, ignore_errors=True)
    for room in ("lib", "mm", "arch", "x86", "tests/property", "tests/unit"):
        shutil.copytree(room, f"{tree}/{room}")
    os.chdir(tree)


def build_true(base, arguments):
    """The untouched program: it must pass, or nothing can be learnt."""
    folder = f"{base}/true"
    os.makedirs(folder, exist_ok=True)
    sources = sorted({source for test in TESTS for source in sources_of(test, arguments)})
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for error in pool.map(lambda source: compile_one(folder, source), sources):
            if error:
                sys.exit(error)
    for test in TESTS:
        objects = [object_of(folder, source) for source in sources_of(test, arguments)]
        error = link(objects, f"{folder}/{test}")
        said = error or run_test(f"{folder}/{test}", test)
        if said:
            sys.exit(f"{test} fails as it is: {said}")


def load():
    with open(LIST, encoding="utf-8") as file:
        return anchor.parse(file.read(), LIST)


def run_all(base, mutants, arguments, each):
    """Tries each of them, and calls `each` with one that is done."""
    here = os.getcwd()
    snapshot(base)
    build_true(base, arguments)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            pool.submit(try_one, base, mutant, number, arguments): mutant
            for number, mutant in enumerate(mutants, 1)
        }
        for done in concurrent.futures.as_completed(runs):
            done.result()
            each(runs[done])
    os.chdir(here)
