/* The sum of every rank's buffer, in one order for all transports (base/sum_tree.h), so that the
 * same parts give the same bits on every rank, by every transport, and
 * for every number of ranks. */
#ifndef COMM_REDUCE_H
#define COMM_REDUCE_H

#include "comm/group.h"

#include <stddef.h>

/* out[i] = sources[0][i] + sources[1][i] + .., added in f32, rounded to `dtype` once.
 * sources[group->ranks], out: host [count]; out may be one of the sources. The tree is that over
 * group->parts; where a rank holds no whole subtree, the nearest cut between ranks serves. */
void reduce_sum(void *out, const void *const *sources, const struct comm_group *group, size_t count,
                enum kernel_dtype dtype);

/* First element of the part of [0, count) that `rank` of `ranks` reduces; rank == ranks: the end.
 * Parts start at multiples of 16 elements. */
size_t reduce_slice_first(size_t count, int rank, int ranks);

size_t reduce_element_bytes(enum kernel_dtype dtype);

/* What a sum of `bytes` counts among comm_group.sent_bytes. */
uint64_t reduce_sent_bytes(size_t bytes, int ranks);

#endif
