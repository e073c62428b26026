"""A saved guest (docs/SAVED-GUEST.md), as it leaves a machine by its console."""

import base64
import hashlib

from quire_machine.console import MachineError

MAGIC = b"QuireVM\0"
PATIENCE = 3600  # the line is slow


class Refused(MachineError):
    """The console has said why such a guest is not saved."""


def take(console, guest):
    """The file that `save` answers with, checked: all of it, in order, and with the digest that it ends with."""
    answer = console.ask(f"save {guest}", timeout=PATIENCE)
    if not answer.ok:
        raise Refused("; ".join(answer.errors) or f"{guest} was not saved")
    taken = bytearray()
    for part in answer.records("saved part"):
        if part["offset"] != len(taken):
            raise MachineError(f"the saved guest lacks what lies from byte {len(taken)} on")
        taken += base64.b64decode(part["bytes"], validate=True)
    told = answer.facts("saved")
    if len(taken) != told["bytes"] or not taken.startswith(MAGIC):
        raise MachineError(f"the saved guest has {len(taken)} bytes, and was said to have {told['bytes']}")
    if hashlib.sha256(taken[:-32]).digest() != taken[-32:]:
        raise MachineError("the saved guest came over the line damaged: its SHA-256 is another")
    return bytes(taken), told["pages"]
