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


def take(console):
    """Asks everything that a dump holds."""
    answers = {command: console.ask(command).objects for command in WHOLE}
    for row in answers["guests"]:
        if row.get("record") == "guest" and row["values"]["state"] != "refused":
            command = f"map {row['values']['guest']}"
            answers[command] = console.ask(command).objects
            # Its own tables; an answer that says why not where it has none.
            answers[command + " gva"] = console.ask(command + " gva").objects
            screen = f"screen {row['values']['guest']}"
            answers[screen] = console.ask(screen).objects
    return {
        "version": VERSION,
        "taken": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "engine": console.about,
        "tree": tree(),
        "machine": answers,
    }


def records(dump, command, name):
    """The values of each record `name` in the answer to `command`; none when it was not asked."""
    return [each["values"] for each in dump["machine"].get(command, []) if each.get("record") == name]
