"""What a whole machine says about its memory, as one JSON document: what tools/picture.py draws.

    {"version": 1, "taken": date, "engine": text, "tree": text,
     "machine": {command: [objects of its answer], ...}}
"""

import datetime
import os
import subprocess

VERSION = 1

WHOLE = ["version", "mem", "layout", "guests", "map host"]


def tree():
    """Which state of the sources the tools are of; None where that is not known."""
    here = os.path.dirname(os.path.abspath(__file__))
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def ask_use(console, guest):
    """What a guest that runs has written since the last question, and what it works with. Where nobody has asked
    before, what it writes meanwhile; then nothing is left tracked."""
    written = console.ask(f"dirty {guest}")
    begun = not records_of(written.objects, "dirty") and any("tracked from now on" in note for note in written.notes)
    heat = console.ask(f"heat {guest}")
    if begun:
        written = console.ask(f"dirty {guest}")
        console.ask(f"dirty {guest} off")
    return {f"dirty {guest}": written.objects, f"heat {guest}": heat.objects}


def take(console, use=False):
    """Asks everything that a dump holds; with `use`, also what the guests that run write and reach, for which they
    run on a little."""
    answers = {command: console.ask(command).objects for command in WHOLE}
    for row in answers["guests"]:
        if row.get("record") == "guest" and row["values"]["state"] != "refused":
            command = f"map {row['values']['guest']}"
            answers[command] = console.ask(command).objects
            # Its own tables; an answer that says why not where it has none.
            answers[command + " gva"] = console.ask(command + " gva").objects
            if use and row["values"]["state"] == "running":
                answers.update(ask_use(console, row["values"]["guest"]))
            screen = f"screen {row['values']['guest']}"
            answers[screen] = console.ask(screen).objects
    return {
        "version": VERSION,
        "taken": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "engine": console.about,
        "tree": tree(),
        "machine": answers,
    }


def records_of(objects, name):
    return [each["values"] for each in objects if each.get("record") == name]


def records(dump, command, name):
    """The values of each record `name` in the answer to `command`; none when it was not asked."""
    return records_of(dump["machine"].get(command, []), name)
