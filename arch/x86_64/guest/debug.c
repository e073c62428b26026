/* See debug.h. */
#include "arch/x86_64/guest/debug.h"

#include "lib/bits.h"

#define DR7_ENABLED(dr7, n) ((dr7) >> (2 * (n)) & 3) /* L and G */
#define DR7_ACCESS(dr7, n) ((dr7) >> (16 + 4 * (n)) & 3)
#define DR7_LENGTH(dr7, n) ((dr7) >> (18 + 4 * (n)) & 3)

static bool is_watched(unsigned watched, enum debug_access access)
{
    return watched == access || (watched == DEBUG_READ && access == DEBUG_WRITE);
}

unsigned debug_matches(const uint64_t dr[4], uint64_t dr7, enum debug_access access, uint64_t at,
                       unsigned bytes)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    unsigned met = 0;

    for (unsigned n = 0; n < 4; n++) {
        uint64_t length = lengths[DR7_LENGTH(dr7, n)], first = align_down(dr[n], length);

        if (DR7_ENABLED(dr7, n) && is_watched((unsigned)DR7_ACCESS(dr7, n), access) &&
            at <= first + length - 1 && first <= at + bytes - 1)
            met |= 1u << n;
    }
    return met;
}
