"""Starting whatever kind of machine an engine stands for."""

import sys

from quire_machine.engines import Nested
from quire_machine.machine import Machine
from quire_machine.nested import NestedMachine


def _to_stderr(text):
    print(text, file=sys.stderr, flush=True)


def boot(engine, iso, note=_to_stderr):
    """Returns the running machine; note() is told, in sentences, what a long start has come to."""
    if isinstance(engine, Nested):
        return NestedMachine(engine, iso, note)
    return Machine(engine, iso)
