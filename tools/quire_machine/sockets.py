"""Unix sockets at any path: an address holds 107 bytes, and folders can be deep."""

import os

LONGEST = 107


def call(method, path):
    """Calls a socket's `bind` or `connect` for `path`."""
    if len(os.fsencode(path)) <= LONGEST:
        method(path)
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_CLOEXEC)
    try:
        method(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
