"""What a whole machine says about its memory, as one JSON document: what tools/picture.py draws.

    {"version": 1, "machine": {command: [objects of its answer], ...}}
"""

VERSION = 1

WHOLE = ["version", "mem", "layout", "guests", "map host"]


def take(console):
    """Asks everything that a dump holds."""
    answers = {command: console.ask(command).objects for command in WHOLE}
    for row in answers["guests"]:
        if row.get("record") == "guest" and row["values"]["state"] != "refused":
            command = f"map {row['values']['guest']}"
            answers[command] = console.ask(command).objects
    return {"version": VERSION, "machine": answers}


def records(dump, command, name):
    """The values of each record `name` in the answer to `command`; none when it was not asked."""
    return [each["values"] for each in dump["machine"].get(command, []) if each.get("record") == name]
