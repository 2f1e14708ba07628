/* The smaller of two numbers. */
#ifndef BASE_MIN_H
#define BASE_MIN_H

#include <stdint.h>

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif
