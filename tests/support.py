"""Where things are."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.join(ROOT, "tools")
BUILD = os.path.abspath(os.environ.get("QUIRE_BUILD", os.path.join(ROOT, "build")))
DEMO_ISO = os.path.join(BUILD, "quire.iso")
QUIRE_ELF = os.path.join(BUILD, "quire.elf")
