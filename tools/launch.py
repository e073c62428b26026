#!/usr/bin/python3
"""Boots a Quire image on the best engine this machine has, and connects its console.

    tools/launch.py build/quire.iso

Settings come from options, or from the environment, where `make run` puts them:

    ENGINE=auto|kvm|bochs|qemu|nested   CPU=model   CPUS=N   MEMORY=MiB   CMDS="guests; mem; quit"
    PATIENCE=seconds   SUITE=trixie (of Debian, for nested)

With CMDS each command is typed at the prompt and the transcript printed; where guests run on and keep
the prompt away, a key is pressed after PATIENCE seconds. Without, a terminal is connected to the
console (Ctrl-C gets out, but for a line that is typed or a guest that is attached), and standard
input that is no terminal is read line by line. Status 0: the machine was switched off by `quit`; 1:
it was not; 2: it could not be started.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from quire_machine import MachineError, boot, commands, engines, patience, session  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    setting = os.environ.get
    parser.add_argument("iso", help="the bootable image")
    parser.add_argument("--engine", default=setting("ENGINE") or "auto")
    parser.add_argument("--cpu", default=setting("CPU") or None, help="CPU model of the engine")
    parser.add_argument(
        "--memory", type=engines.memory_size, default=setting("MEMORY") or "256", help="in MiB"
    )
    parser.add_argument(
        "--cpus", type=engines.cpu_count, default=setting("CPUS") or "1", help="how many CPUs"
    )
    parser.add_argument("--cmds", default=setting("CMDS") or None, help="commands, split at ';'")
    parser.add_argument(
        "--patience",
        type=patience.seconds,
        default=setting("PATIENCE") or patience.PATIENCE_SECONDS,
        help="how long guests may run on before a key is pressed for the next command (%(default)s s)",
    )
    parser.add_argument(
        "--seconds", type=int, default=600, help="time limit of a run without a terminal"
    )
    return parser.parse_args()


def note(text, start=""):
    try:
        print(f"{start}launcher: {text}", flush=True)
    except OSError:
        # Nobody listens any more. Python would try again, and complain, when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(options):
    """Returns the exit status."""
    try:
        engine, reasons = engines.choose(options.engine, options.cpu, options.memory, options.cpus)
    except engines.EngineError as error:
        note(error)
        return 2
    for reason in reasons:
        note(reason)
    try:
        with boot(engine, options.iso, note) as machine:
            person = options.cmds is None and sys.stdin.isatty()
            note(engine.describe() + ("; `quit` or Ctrl-C ends it" if person else ""))
            if person:
                problem = session.interactive(machine, sys.stdin.fileno())
            elif options.cmds is not None:
                asked = commands.split(options.cmds)
                problem = session.scripted(machine, asked, options.seconds, options.patience)
            else:
                problem = session.piped(machine, sys.stdin, options.seconds, options.patience)
    except (MachineError, OSError) as error:
        problem = str(error)
    if problem:
        note(problem, start="\n")
        return 1
    return 0


def main():
    options = arguments()
    session.catch_signals()
    try:
        status = run(options)
    except session.Interrupted as wanted:
        note("interrupted; the machine is gone", start="\n")
        status = 128 + wanted.signum
    sys.exit(status)


if __name__ == "__main__":
    main()
