/*
 * What a mapping allows and how it caches, in words that every table kind shares. A kind's
 * encode and decode (mm/paging/kind.h) turn them into its entry bits and back.
 */
#ifndef QUIRE_MM_ATTRS_H
#define QUIRE_MM_ATTRS_H

#include <stdbool.h>
#include <stdint.h>

enum rights {
    RIGHT_NONE = 0,
    RIGHT_R = 1,
    RIGHT_W = 2,
    RIGHT_X = 4, /* execute; for EPT with mode-based execute control: in supervisor mode */
    RIGHT_U = 8, /* host kinds: reachable from ring 3. EPT with mode-based control: execute there */
    RIGHT_G = 16, /* host kinds: global, survives a CR3 load */
    RIGHT_RW = RIGHT_R | RIGHT_W,
    RIGHT_RX = RIGHT_R | RIGHT_X,
    RIGHT_RWX = RIGHT_R | RIGHT_W | RIGHT_X,
};

/* Values as in IA32_PAT and the EPT entry (SDM Vol. 3, "Memory types that can be encoded"). */
enum mem_type {
    MEM_UC = 0,
    MEM_WC = 1,
    MEM_WT = 4,
    MEM_WP = 5,
    MEM_WB = 6,
};

struct attrs {
    uint8_t rights; /* enum rights, or-ed */
    uint8_t type;   /* enum mem_type */
};

static inline struct attrs attrs_of(unsigned rights, enum mem_type type)
{
    return (struct attrs){(uint8_t)rights, (uint8_t)type};
}

static inline bool attrs_equal(struct attrs a, struct attrs b)
{
    return __builtin_memcmp(&a, &b, sizeof(a)) == 0; /* one comparison */
}

const char *mem_type_name(enum mem_type type);

/* "rwx-g" in the order r w x u g, '-' where a right is missing. Returns buffer. */
#define RIGHTS_TEXT 6
const char *rights_text(char buffer[RIGHTS_TEXT], unsigned rights);

#endif
