/* See debug.h. */
#include "arch/x86_64/guest/debug.h"

#include "arch/x86_64/guest/legal.h"
#include "lib/bits.h"

#define DR7_ENABLED(dr7, n) ((dr7) >> (2 * (n)) & 3) /* L and G */
#define DR7_ACCESS(dr7, n) ((dr7) >> (16 + 4 * (n)) & 3)
#define DR7_LENGTH(dr7, n) ((dr7) >> (18 + 4 * (n)) & 3)
#define DR7_G(n) (UINT64_C(2) << (2 * (n)))
#define DR7_OF(n) (UINT64_C(3) << (2 * (n)) | UINT64_C(0xf) << (16 + 4 * (n)))
#define DR7_WRITABLE (BITS(31, 16) | BIT(13) | BITS(9, 0))
#define DR7_ONE BIT(10)
#define DR7_GD BIT(13)
#define DR6_WRITABLE (BITS(15, 13) | BITS(3, 0))
#define DR6_ONE UINT64_C(0xffff0ff0)

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

int debug_spare(uint64_t dr7)
{
    for (int n = 3; n >= 0; n--)
        if (!DR7_ENABLED(dr7, (unsigned)n))
            return n;
    return -1;
}

uint64_t debug_armed(uint64_t dr7, unsigned n)
{
    return (dr7 & ~DR7_OF(n)) | DR7_G(n);
}

uint64_t debug_disarmed(uint64_t dr7, uint64_t own, unsigned n)
{
    return (dr7 & ~DR7_OF(n)) | (own & DR7_OF(n));
}

static void read_register(const struct debug_registers *registers, unsigned dr,
                          struct debug_move *move)
{
    move->value = dr < 4 ? registers->dr[dr] : dr == 6 ? registers->dr6 : registers->dr7;
    if (move->bytes == 4)
        move->value &= UINT32_MAX;
}

static enum debug_outcome write_register(struct debug_registers *registers, unsigned dr,
                                         uint64_t value)
{
    if (dr < 4) {
        registers->dr[dr] = value;
        return DEBUG_MOVED;
    }
    if (value > UINT32_MAX)
        return DEBUG_PROTECTION;
    if (dr == 6)
        registers->dr6 = (value & DR6_WRITABLE) | DR6_ONE;
    else
        registers->dr7 = (value & DR7_WRITABLE) | DR7_ONE;
    return DEBUG_MOVED;
}

enum debug_outcome debug_move(struct debug_registers *registers, struct debug_move *move)
{
    unsigned dr = move->dr;

    if (dr == 4 || dr == 5) {
        if (move->extensions)
            return DEBUG_UNDEFINED;
        dr += 2;
    }
    if (move->cpl != 0)
        return DEBUG_PROTECTION;
    if (registers->dr7 & DR7_GD) {
        registers->dr6 = (registers->dr6 & ~DEBUG_BREAKPOINTS) | DEBUG_BD;
        registers->dr7 &= ~DR7_GD;
        return DEBUG_DETECTED;
    }
    if (move->write)
        return write_register(registers, dr,
                              move->bytes == 4 ? move->value & UINT32_MAX : move->value);
    read_register(registers, dr, move);
    return DEBUG_MOVED;
}
