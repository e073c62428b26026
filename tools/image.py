#!/usr/bin/python3
"""Makes a bootable ISO: GRUB, the hypervisor, and modules for it.

    tools/image.py build --config boot/grub.cfg --files build -o build/quire.iso
    tools/image.py build --elf build/quire.elf --cmdline "reserve=64M" \\
        --module "build/guests/hello.elf:hello mem=16M" -o x.iso

The first form takes GRUB's configuration as it is; each path that a `multiboot2` or `module2` line
of it names is taken from the folder given. The second writes the configuration; without --elf it boots
the hypervisor that `make` has built beside this tool. Only the GRUB modules that are needed go into the
image, which keeps it small and halves the time to boot.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

BUILD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build")
GRUB_FOLDER = "/usr/lib/grub/i386-pc"
GRUB_MODULES = "normal multiboot2 iso9660 biosdisk boot"
HYPERVISOR = "/quire.elf"
LOADING_LINE = re.compile(r"^\s*(multiboot2|module2)\s+(\S+)", re.M)


class ImageError(Exception):
    pass


def files_of(config, folder):
    """What a GRUB configuration loads: path in the image -> file in `folder`."""
    paths = [path for _, path in LOADING_LINE.findall(config)]
    return {path: os.path.join(folder, path.lstrip("/")) for path in paths}


def grub_words(text):
    """A command line as GRUB's shell must be told it: each word quoted, so that none is special."""
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in text.split())


def configuration(cmdline, modules):
    """GRUB's configuration for modules given as (path in the image, command line)."""
    lines = ["set timeout=0", f"multiboot2 {HYPERVISOR} {grub_words(cmdline)}"]
    lines += [f"module2 {path} {grub_words(words)}" for path, words in modules]
    return "\n".join([*lines, "boot", ""])


def write_iso(output, config, files, grub_modules=GRUB_MODULES):
    """Writes the ISO with GRUB's configuration `config` and `files` (path in the image -> file)."""
    folder = os.path.dirname(output)
    if folder and not os.path.isdir(folder):
        raise ImageError(f"there is no folder {folder} to write {os.path.basename(output)} into")
    with tempfile.TemporaryDirectory(prefix="quire-iso-") as root:
        for path, source in [("/boot/grub/grub.cfg", None), *files.items()]:
            target = os.path.join(root, path.lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if source:
                shutil.copyfile(source, target)
        with open(os.path.join(root, "boot/grub/grub.cfg"), "w", encoding="utf-8") as out:
            out.write(config)
        done = subprocess.run(
            ["grub-mkrescue", "-d", GRUB_FOLDER, f"--install-modules={grub_modules}"]
            + ["--locales=", "--fonts=", "--themes=", "--compress=no", "-o", output, root],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    # Some versions end with status 0 although xorriso failed.
    if done.returncode or not os.path.isfile(output):
        raise ImageError("grub-mkrescue failed:\n" + done.stdout.decode("utf-8", "replace"))


def build_image(output, elf, cmdline="", modules=()):
    """Writes an ISO that boots `elf`, with modules given as (file, command line)."""
    if not os.path.isfile(elf):
        raise ImageError(
            f"there is no hypervisor {elf}: `make` builds build/quire.elf, --elf names another"
        )
    files, placed = {HYPERVISOR: elf}, []
    for index, (source, words) in enumerate(modules):
        if not os.path.isfile(source):
            raise ImageError(f"there is no module {source}")
        path = f"/modules/{index}"
        files[path] = source
        placed.append((path, words))
    write_iso(output, configuration(cmdline, placed), files)


def build_configured(output, name, folder):
    """Writes an ISO with GRUB's configuration in the file `name`, and what that loads from `folder`."""
    with open(name, encoding="utf-8") as source:
        config = source.read()
    files = files_of(config, folder)
    for path, source in files.items():
        if not os.path.isfile(source):
            raise ImageError(f"{name} loads {path}, and there is no file {source}")
    write_iso(output, config, files)


def parse_module(text):
    """FILE:COMMAND LINE"""
    source, _, words = text.partition(":")
    if not source:
        raise ImageError(f"--module {text!r} names no file: it is FILE:COMMAND LINE")
    return source, words


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    build = parser.add_subparsers(required=True, metavar="build").add_parser("build")
    build.add_argument("-o", "--output", required=True, help="the image to write")
    build.add_argument("--config", help="GRUB's configuration, instead of the options below")
    build.add_argument(
        "--files", default=BUILD, help="the folder of the files that it names (%(default)s)"
    )
    build.add_argument(
        "--elf",
        default=os.path.join(BUILD, "quire.elf"),
        help="the hypervisor's image, what `make` builds (%(default)s)",
    )
    build.add_argument("--cmdline", default="", help="the hypervisor's command line")
    build.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="FILE:COMMAND LINE",
        help="a guest: its image, its name and options; once for each guest",
    )
    return parser.parse_args()


def main():
    options = arguments()
    try:
        if options.config:
            build_configured(options.output, options.config, options.files)
        else:
            modules = [parse_module(each) for each in options.module]
            build_image(options.output, options.elf, options.cmdline, modules)
    except ImageError as error:
        sys.exit(f"image: {error}")
    except OSError as error:
        sys.exit(f"image: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
