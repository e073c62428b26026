"""What a cmocka program has said when it failed."""

import re


def complaint(said, status):
    """The message of a check, sanitizer or panic; else the test that failed, or was last begun."""
    for line in said.splitlines():
        found = re.search(r"(?:ERROR: |error: |panic: )(.*)", line)
        if found and "Failure!" not in found[1] and "LeakSanitizer" not in found[1]:
            return found[1]
    failed = re.findall(r"^\[  FAILED  \] (\w+)", said, re.M)
    begun = failed[:1] or re.findall(r"^\[ RUN      \] (\w+)", said, re.M)[-1:]
    return begun[0] if begun else f"died with status {status}"
