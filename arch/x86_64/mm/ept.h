/*
 * The EPT kind: a guest's physical address space, and its root register, the EPTP.
 */
#ifndef QUIRE_ARCH_X86_64_MM_EPT_H
#define QUIRE_ARCH_X86_64_MM_EPT_H

#include "mm/paging/table.h"

/* EPT entry bits, SDM Vol. 3, 29.3.2, tables 29-1 to 29-7. */
#define EPT_R BIT(0)
#define EPT_W BIT(1)
#define EPT_X BIT(2)
#define EPT_TYPE_SHIFT 3
#define EPT_TYPE (UINT64_C(7) << EPT_TYPE_SHIFT)
#define EPT_IGNORE_PAT BIT(6)
#define EPT_LEAF BIT(7)
#define EPT_A BIT(8)
#define EPT_D BIT(9)
#define EPT_XU BIT(10) /* execute for user-mode addresses, with mode-based execute control */

/* EPTP fields, SDM Vol. 3, 25.6.11, table 25-9. */
#define EPTP_TYPE UINT64_C(7)
#define EPTP_WALK_SHIFT 3
#define EPTP_WALK (UINT64_C(7) << EPTP_WALK_SHIFT) /* walk length minus 1 */
#define EPTP_AD BIT(6)
#define EPTP_SUPERVISOR_SHADOW_STACK BIT(7)
#define EPTP_RESERVED BITS(11, 8)

/* Exit qualification of an EPT violation, SDM Vol. 3, 28.2.1, table 28-7: the access in bits 2:0,
 * then what the table lets through, and what is known of the linear address. */
#define QUALIFICATION_ALLOWED_SHIFT 3
#define QUALIFICATION_USER_EXECUTE BIT(6)
#define QUALIFICATION_LINEAR BIT(7)
#define QUALIFICATION_FINAL BIT(8)
#define QUALIFICATION_USER_ADDRESS BIT(9)
#define QUALIFICATION_WRITABLE BIT(10)
#define QUALIFICATION_NO_EXECUTE BIT(11)

struct eptp {
    uint64_t raw;
    hpa_t root;         /* the PML4's frame: the address alone, no attribute bit left in it */
    enum mem_type type; /* of accesses to the tables themselves */
    unsigned levels;
    bool accessed_dirty;
};

/* `levels` is the walk length (4); `root` 4 KiB aligned. */
uint64_t eptp_compose(hpa_t root, enum mem_type type, unsigned levels, bool accessed_dirty);

/* E_ILLEGAL when a reserved bit is set or the memory type or walk length is one that no CPU has. */
int eptp_decode(uint64_t raw, struct eptp *out);

/* The EPTP that belongs to this table. */
uint64_t ept_eptp(const struct table *table);

#endif
