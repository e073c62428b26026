/*
 * Breakpoints over what is carried out for a guest: which of its debug registers an access to a
 * port or to memory matches. SDM Vol. 3, 18.2 "Debug Registers", 18.3.1.2 and 18.3.1.3.
 */
#ifndef QUIRE_ARCH_GUEST_DEBUG_H
#define QUIRE_ARCH_GUEST_DEBUG_H

#include <stdint.h>

#define DR7_ENABLES UINT64_C(0xff) /* L0, G0 .. L3, G3 */

/* As R/W of DR7 says; DEBUG_FETCH is of an instruction's first byte. */
enum debug_access { DEBUG_FETCH = 0, DEBUG_WRITE = 1, DEBUG_PORT = 2, DEBUG_READ = 3 };

/* Those enabled breakpoints (bit n: DRn) that an access of `bytes` at `at` meets. R/W 3 of DR7
 * matches reads and writes; with CR4.DE clear, 2 matches nothing. */
unsigned debug_matches(const uint64_t dr[4], uint64_t dr7, enum debug_access access, uint64_t at,
                       unsigned bytes);

#endif
