# The hosted unit tests: each names the product sources that it links.

UNIT_TESTS += line_editor
UNIT_line_editor_SRC := monitor/line_editor.c lib/format.c

UNIT_TESTS += arguments
UNIT_arguments_SRC := monitor/arguments.c lib/format.c

# lib/string.c has the libc's own names; its test gets it through string_renamed.c, which includes it
# under other ones. A hosted program otherwise takes these functions from the libc, so lib/string.c
# itself stands in no list here.
UNIT_TESTS += lib
UNIT_lib_SRC := lib/error.c lib/format.c lib/log.c tests/unit/string_renamed.c

UNIT_TESTS += memblock
UNIT_memblock_SRC := mm/memblock.c

UNIT_TESTS += multiboot2
UNIT_multiboot2_SRC := boot/multiboot2.c lib/format.c tests/unit/boot_table.c
