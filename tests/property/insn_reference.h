/*
 * The independent disassembler (Zydis, Debian's libzydis-dev) in the terms of the decoder under
 * test, so that the two can be compared field by field.
 */
#ifndef QUIRE_TESTS_PROPERTY_INSN_REFERENCE_H
#define QUIRE_TESTS_PROPERTY_INSN_REFERENCE_H

#include "arch/x86_64/insn/decode.h"

enum reference_class {
    REFERENCE_REFUSED,   /* no instruction */
    REFERENCE_OTHER,     /* one that is in none of the forms that the decoder has to know */
    REFERENCE_REGISTERS, /* an operation that it knows, without memory */
    REFERENCE_MEMORY,    /* one that it has to know */
};

struct reference {
    enum reference_class class;
    struct insn insn; /* REGISTERS: op and length; MEMORY: all but opcode[] and mode */
};

void reference_start(void);
void reference_decode(const uint8_t *bytes, size_t count, enum insn_mode mode,
                      struct reference *out);

/* The instruction in Intel's notation. */
const char *reference_text(const uint8_t *bytes, size_t count, enum insn_mode mode);

/* What differs between the two, by its name; NULL if nothing does. */
const char *reference_difference(const struct insn *ours, const struct insn *theirs);

#endif
