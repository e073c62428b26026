"""Breaks of the hypervisor around the mapper: each names the tests that must notice it.

A block of tests/mutants/product/*.txt has, beside what anchor.py says, one or more lines

    by: unit NAME              a hosted test, tests/unit/test_NAME.c; `property` likewise
    by: emulator FILE [-k X]   whole-machine tests, tests/emulator/FILE; `nested` likewise

which are tried in that order until one fails. Each worker has a copy of the tree with its build, in
which make builds what the break changes: what is tried is what ships. The copies stay, and the next
run builds in them what has changed since.
"""

import concurrent.futures
import filecmp
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess

import anchor
import cmocka

LISTS = "tests/mutants/product"
SECONDS = {"unit": 120, "property": 300, "emulator": 900, "nested": 1800}
CACHES = ("nested", "packages", "linux", "memtest86")  # of what was downloaded: shared, never written
PLAIN = "-std=gnu11 -O0 -DQUIRE_HOSTED -I. -w"  # for hosted tests, to build fast
PYTEST = ["/usr/bin/python3", "-B", "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider"]


class DoesNotBuild(Exception):
    pass


def sources():
    """The files of the tree, those that git does not know yet among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name for name in names if os.path.lexists(name) and name}


def load():
    mutants = []
    for name in sorted(os.listdir(LISTS)):
        with open(f"{LISTS}/{name}", encoding="utf-8") as file:
            mutants += anchor.parse(file.read(), f"{LISTS}/{name}")
    for mutant in mutants:
        if not mutant.tests or any(test.split()[0] not in SECONDS for test in mutant.tests):
            raise SystemExit(f"{mutant.name}: `by: unit|property|emulator|nested ...` is missing or wrong")
    return mutants


def run(command, folder, seconds=1800, **more):
    """Status and output; the whole group of processes ends in time. Status None: it had to be ended."""
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        **more,
    ) as child:
        try:
            return_text, _ = child.communicate(timeout=seconds)
            return child.returncode, return_text
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return None, ""


class Tree:
    """A copy of the tree and of what is built, for one worker."""

    def __init__(self, folder):
        self.folder = folder
        if os.path.exists(f"{folder}/build"):
            self.refresh()
        else:
            self.copy()

    def copy(self):
        for file in sources():
            os.makedirs(os.path.dirname(f"{self.folder}/{file}") or self.folder, exist_ok=True)
            shutil.copy2(file, f"{self.folder}/{file}", follow_symlinks=False)
        os.makedirs(f"{self.folder}/new")
        for name in os.listdir("build"):
            if name in CACHES:
                os.symlink(os.path.abspath(f"build/{name}"), f"{self.folder}/new/{name}")
            elif name not in ("mutants", "fuzz"):
                # With its times, or make would build all of it again.
                subprocess.run(["cp", "-a", f"build/{name}", f"{self.folder}/new/{name}"], check=True)
        os.rename(f"{self.folder}/new", f"{self.folder}/build")  # it is whole

    def refresh(self):
        """Makes a tree of an earlier run what the sources are now. What changes gets the time of now:
        it may have been broken, and built so, when that run ended."""
        wanted = sources()
        for folder, folders, files in os.walk(self.folder):
            if folder == self.folder:
                folders.remove("build")
            for name in files:
                if os.path.relpath(f"{folder}/{name}", self.folder) not in wanted:
                    os.remove(f"{folder}/{name}")
        for file in wanted:
            path = f"{self.folder}/{file}"
            if not os.path.exists(path) or not filecmp.cmp(file, path, shallow=False):
                os.makedirs(os.path.dirname(path) or self.folder, exist_ok=True)
                shutil.copy(file, path, follow_symlinks=False)

    def make(self, target, *settings):
        # Warnings are no errors here: a break may well leave something unused.
        command = ["make", "-j2", "BUILD=build", "CC=gcc -w", "HOSTCC=gcc -w", *settings, target]
        status, said = run(command, self.folder)
        if status != 0:
            lines = [line for line in said.splitlines() if "rror" in line] or ["make fails"]
            raise DoesNotBuild(lines[0])

    def hosted(self, kind, name):
        """What a hosted test says when it fails; None when it passes. First without sanitizers, which
        takes a tenth of the time."""
        self.make(f"build/plain/{kind}/{name}", "HOSTED=build/plain", f"HOSTED_CFLAGS={PLAIN}")
        said = self.run_hosted("plain", kind, name)
        if not said:
            self.make(f"build/hosted/{kind}/{name}")
            said = self.run_hosted("hosted", kind, name)
        return said

    def run_hosted(self, folder, kind, name):
        status, said = run([f"build/{folder}/{kind}/{name}"], self.folder, SECONDS[kind])
        if status == 0:
            return None
        if status is None:
            return f"still running after {SECONDS[kind]} s"
        return cmocka.complaint(said, status)

    def machine(self, kind, words):
        """What a whole-machine test says when it fails; None when it passes."""
        self.make("build/quire.iso")
        file, *rest = shlex.split(words)
        where = {**os.environ, "QUIRE_BUILD": f"{self.folder}/build"}
        status, said = run(
            [*PYTEST, f"tests/{kind}/{file}", *rest], self.folder, SECONDS[kind], env=where
        )
        if status == 0:
            return None
        if status is None:
            return f"still running after {SECONDS[kind]} s"
        failed = re.search(r"^(?:FAILED|ERROR) \S*::(.*)$", said, re.M)
        if status != 1 or not failed:
            raise DoesNotBuild(f"pytest ends with status {status}: {said.strip().splitlines()[-1:]}")
        return failed[1]

    def notices(self, test):
        kind, words = test.split(None, 1)
        return (self.hosted if kind in ("unit", "property") else self.machine)(kind, words)

    def try_one(self, mutant):
        path = f"{self.folder}/{mutant.file}"
        with open(path, encoding="utf-8") as file:
            whole = file.read()
        try:
            self.write(path, mutant.apply(whole))
            for test in mutant.tests:
                said = self.notices(test)
                if said:
                    mutant.result, mutant.by = "killed", f"{test}: {said}"
                    return
            mutant.result = "SURVIVES"
        except anchor.Misplaced as why:
            mutant.result = f"does not apply: {why}"
        except DoesNotBuild as why:
            mutant.result = f"does not build: {why}"
        finally:
            self.write(path, whole)

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def run_all(base, mutants, jobs, each):
    """Tries each of them, after every test that they name has passed on the tree as it is. Calls
    `each` with a mutant that is done."""
    trees = queue.SimpleQueue()
    for number in range(min(jobs, len(mutants))):
        trees.put(Tree(f"{base}/tree{number}"))

    def with_tree(what):
        tree = trees.get()
        try:
            return what(tree)
        finally:
            trees.put(tree)

    def passes(test):
        try:
            said = with_tree(lambda tree: tree.notices(test))
        except DoesNotBuild as why:
            said = str(why)
        if said:
            raise SystemExit(f"{test} fails as it is: {said}")

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(passes, sorted({test for mutant in mutants for test in mutant.tests})):
            pass
        runs = {pool.submit(with_tree, lambda tree, m=mutant: tree.try_one(m)): mutant for mutant in mutants}
        for done in concurrent.futures.as_completed(runs):
            done.result()
            each(runs[done])
