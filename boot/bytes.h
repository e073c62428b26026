/*
 * Numbers in tables that firmware and loader have left in memory: little-endian, at any address.
 */
#ifndef QUIRE_BOOT_BYTES_H
#define QUIRE_BOOT_BYTES_H

#include <stdint.h>

#include "lib/string.h"

static inline uint32_t read32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t read64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

#endif
