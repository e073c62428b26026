# The hosted unit tests: each names the product sources that it links.

UNIT_TESTS += line_editor
UNIT_line_editor_SRC := monitor/line_editor.c lib/format.c

UNIT_TESTS += arguments
UNIT_arguments_SRC := monitor/arguments.c lib/format.c
