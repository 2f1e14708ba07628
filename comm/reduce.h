/* The sum of every rank's buffer, in the order of the ranks: one order for all transports, so that
 * the same ranks give the same bits on every rank and by every transport. */
#ifndef COMM_REDUCE_H
#define COMM_REDUCE_H

#include "kernels/backend.h"

#include <stddef.h>

enum { COMM_RANKS_MAX = 256 };

/* out[i] = sources[0][i] + sources[1][i] + .., added in f32, rounded to `dtype` once.
 * sources[ranks], out: host [count]; out may be one of the sources. */
void reduce_sum(void *out, const void *const *sources, int ranks, size_t count,
                enum kernel_dtype dtype);

/* First element of the part of [0, count) that `rank` of `ranks` reduces; rank == ranks: the end.
 * Parts start at multiples of 16 elements. */
size_t reduce_slice_first(size_t count, int rank, int ranks);

size_t reduce_element_bytes(enum kernel_dtype dtype);

#endif
