/*
 * The address space of one ring-3 program: a static ELF64 image, loaded onto a user table of its
 * own whose upper half is the kernel's.
 *
 *   0x00007ffffffff000  absent
 *                       stack, 64 KiB, read-write
 *                       absent: the guard
 *   ...                 segments, each with the rights of its header; never writable and executable
 *   0x0000000000000000  absent: a null pointer faults
 *
 * Every frame of it, tables included, is held under the program's own owner number, so that "it
 * gave back everything" is one comparison.
 */
#ifndef QUIRE_ARCH_X86_64_USER_SPACE_H
#define QUIRE_ARCH_X86_64_USER_SPACE_H

#include <stdint.h>

#include "mm/audit/audit.h"
#include "mm/paging/table.h"

#define USER_STACK_SIZE (64 * KiB)
/* The most memory that segments may ask for: what a loader asks must be bounded. */
#define USER_MEMORY_MAX (16 * MiB)

struct user_space {
    struct table table;
    uint64_t entry;
    uint64_t stack_top; /* exclusive, 16-byte aligned */
};

struct user_space_setup {
    const struct table *kernel; /* its upper half is shared */
    const struct table_env *env;
    owner_t owner;
    uint16_t pcid; /* 0 where there are none */
};

/*
 * Loads the image of `size` bytes. E_NOMEM, E_QUOTA; E_FORMAT, E_TRUNC, E_UNSUPPORTED, E_RANGE or
 * E_EXIST for an image that is refused, with *why (a constant phrase) completing "refused: ". On an
 * error nothing is held. The image is no longer needed afterwards.
 */
int user_space_load(struct user_space *space, const struct user_space_setup *setup,
                    const uint8_t *image, uint64_t size, const char **why);

/* Gives back every frame. The table must not be current on any CPU. */
void user_space_destroy(struct user_space *space);

/* Copies what the program itself may read; stops at the first byte that it may not and returns how
 * many were copied. Never follows `from`: every byte comes by way of the program's table. */
uint64_t user_space_read(struct user_space *space, uint64_t from, void *to, uint64_t size);

/* Describes the program's table to the auditor, under a name that has to stay for as long as `out`.
 */
void user_space_describe(struct user_space *space, const struct table *kernel, const char *name,
                         struct audit_table *out);

#endif
