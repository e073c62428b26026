"""A line of commands, split as the console does it (monitor/arguments.c)."""

import re

# Quotes keep semicolons; one without its end takes the rest.
SINGLE = re.compile(r"""(?:[^;"']|"[^"]*(?:"|$)|'[^']*(?:'|$))+""")


def split(text):
    """The commands of a line."""
    return [each.strip() for each in SINGLE.findall(text) if each.strip()]
