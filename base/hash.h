/* Hashes of tables in memory. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Spread the entropy of `x` over all bits (the finaliser of MurmurHash3). */
static inline uint64_t hash_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ (x >> 33);
}

static inline uint64_t hash_bytes(const void *data, size_t bytes)
{
    const char *next = data;
    uint64_t hash = bytes, tail = 0;

    for (; bytes >= sizeof(tail); next += sizeof(tail), bytes -= sizeof(tail)) {
        memcpy(&tail, next, sizeof(tail));
        hash = hash_mix(hash ^ tail);
    }
    tail = 0;
    memcpy(&tail, next, bytes);
    return hash_mix(hash ^ tail);
}

#endif
