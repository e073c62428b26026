/*
 * SHA-256 (FIPS 180-4, 6.2): a digest of bytes that come in pieces. It tells whether something has
 * arrived as it was sent; who may write both the bytes and the digest can deceive it.
 */
#ifndef QUIRE_LIB_SHA256_H
#define QUIRE_LIB_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes so far */
    uint8_t block[64];
};

void sha256_begin(struct sha256 *digest);
void sha256_add(struct sha256 *digest, const void *bytes, size_t size);
/* Nothing may be added afterwards. */
void sha256_end(struct sha256 *digest, uint8_t out[SHA256_BYTES]);

#endif
