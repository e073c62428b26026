/*
 * Arithmetic on powers of two and single bits. All of it works on 64-bit values.
 */
#ifndef QUIRE_LIB_BITS_H
#define QUIRE_LIB_BITS_H

#include <stdbool.h>
#include <stdint.h>

#define BIT(n) (UINT64_C(1) << (n))
/* Bits high..low, inclusive, as the manual writes them: BITS(51, 12). */
#define BITS(high, low) ((~UINT64_C(0) >> (63 - (high))) & (~UINT64_C(0) << (low)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define KiB UINT64_C(1024)
#define MiB (KiB * 1024)
#define GiB (MiB * 1024)
#define TiB (GiB * 1024)

#define PAGE_SHIFT 12
#define PAGE_SIZE (UINT64_C(1) << PAGE_SHIFT)

static inline uint64_t align_down(uint64_t value, uint64_t unit)
{
    return value & ~(unit - 1);
}

/* Wraps to 0 when the result does not fit; callers that take foreign values check first. */
static inline uint64_t align_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

static inline bool is_aligned(uint64_t value, uint64_t unit)
{
    return (value & (unit - 1)) == 0;
}

static inline bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* The lowest `bits` of the value, 1 to 64, as a signed number. */
static inline int64_t sign_extend(uint64_t value, unsigned bits)
{
    return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

/* Index of the lowest and of the highest set bit; value must not be 0. */
static inline unsigned lowest_bit(uint64_t value)
{
    return (unsigned)__builtin_ctzll(value);
}

static inline unsigned highest_bit(uint64_t value)
{
    return 63u - (unsigned)__builtin_clzll(value);
}

static inline bool bytes_are_zero(const uint8_t *bytes, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

#endif
