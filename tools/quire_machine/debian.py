"""Debian's packages fetched and unpacked into a folder, none of them installed: no root, and nothing
of the running system changes. apt is given lists and a cache of its own, so that old lists do not
matter.

    build/nested/trixie/apt       the lists, and the packages as they came
    build/nested/trixie/root      the packages unpacked, one above the other
"""

import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"
FETCH_SECONDS = 600

# What a suite's own packages may lean on.
BASES = {"bookworm-backports": "bookworm"}


class DebianError(Exception):
    """What was wanted cannot be had; the text is a sentence."""


class Debian:
    """`suite` is a name such as trixie, from Debian's mirror; without, the system's own sources."""

    def __init__(self, folder, suite=None):
        self.suite = suite
        self.root = os.path.join(folder, "root")
        self._apt = os.path.join(folder, "apt")
        self._archives = os.path.join(self._apt, "cache", "archives")
        self.log = os.path.join(folder, "fetch.log")

    @contextlib.contextmanager
    def alone(self):
        """Nobody else fetches into this folder meanwhile."""
        os.makedirs(os.path.dirname(self.root), exist_ok=True)
        with open(os.path.join(os.path.dirname(self.root), "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def is_there(self):
        """Has something been unpacked, and to its end?"""
        return os.path.isdir(self.root) and not os.path.exists(self._apt)

    def fetch_alone(self, packages):
        """Downloads `packages`, nothing that they depend on, and unpacks them."""
        self._begin()
        with open(self.log, "wb") as log:
            self._run(log, "apt-get", "-q", "update", check=False)
            self._run(log, "apt-get", "-q", "download", *packages, cwd=self._archives)
            self._unpack(log)
        shutil.rmtree(self._apt)

    def fetch(self, packages, kernel):
        """Downloads `packages` with all that they depend on, and the newest kernel that the package
        `kernel` stands for; unpacks them. Returns the versions, package -> version."""
        self._begin()
        with open(self.log, "wb") as log:
            self._run(log, "apt-get", "-q", "update", check=False)
            image = self._image_of(kernel)
            flags = ("-q", "-y", "--download-only", "--no-install-recommends")
            self._run(log, "apt-get", *flags, "install", *packages)
            # By itself: what it depends on is for installing it.
            self._run(log, "apt-get", "-q", "download", image, cwd=self._archives)
            self._unpack(log)
        versions = {}
        for each in glob.glob(os.path.join(self._archives, "*.deb")):
            name, version, _ = os.path.basename(each).split("_", 2)
            versions[name] = version.replace("%3a", ":")
        shutil.rmtree(self._apt)
        return versions

    def _begin(self):
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise DebianError("this machine has no apt-get and dpkg-deb to fetch packages with")
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self._apt, ignore_errors=True)
        for each in ("state/lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(self._apt, each))
        self._write("status", "")  # nothing counts as installed
        if self.suite:
            self._write_sources()

    def _unpack(self, log):
        for each in sorted(glob.glob(os.path.join(self._archives, "*.deb"))):
            self._run(log, "dpkg-deb", "-x", each, self.root)

    def _write(self, name, text):
        with open(os.path.join(self._apt, name), "w", encoding="ascii") as out:
            out.write(text)

    def _write_sources(self):
        if not os.path.exists(KEYRING):
            raise DebianError(f"no {KEYRING} (package debian-archive-keyring)")
        suites = [self.suite] + ([BASES[self.suite]] if self.suite in BASES else [])
        lines = [f"deb [signed-by={KEYRING}] {MIRROR} {each} main\n" for each in suites]
        self._write("sources", "".join(lines))
        # A suite above another is taken from only when asked, unless preferred.
        self._write("preferences", f"Package: *\nPin: release n={self.suite}\nPin-Priority: 990\n")

    def _options(self):
        options = {
            "Dir::State": f"{self._apt}/state",
            "Dir::State::status": f"{self._apt}/status",
            "Dir::Cache": f"{self._apt}/cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        if self.suite:
            options["Dir::Etc::sourcelist"] = f"{self._apt}/sources"
            options["Dir::Etc::sourceparts"] = "/dev/null"
            options["Dir::Etc::preferences"] = f"{self._apt}/preferences"
        return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def _run(self, log, program, *words, cwd=None, check=True):
        options = self._options() if program.startswith("apt-") else []
        try:
            done = subprocess.run(
                [program, *options, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                cwd=cwd,
                timeout=FETCH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = f"{program} took longer than {FETCH_SECONDS} seconds; its log: {self.log}"
            raise DebianError(said) from error
        if check and done.returncode:
            raise DebianError(f"{program} {words[-1]} failed; its log: {self.log}")

    def _image_of(self, kernel):
        """The package that `kernel`, which has only a dependency in it, depends on."""
        said = subprocess.run(
            ["apt-cache", *self._options(), "depends", kernel],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout
        found = re.search(r"Depends: (linux-image-\S+)", said)
        if not found:
            raise DebianError(f"apt offers no {kernel} here; its log: {self.log}")
        return found.group(1)
