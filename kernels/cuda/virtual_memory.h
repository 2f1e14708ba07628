/* Device memory with an address range of its own, behind which memory is put together from wherever
 * it is free: an allocation fails only where less is free than it takes, and what is freed leaves
 * no hole. For large allocations, documents' KV above all. Sizes are rounded up to
 * VIRTUAL_MEMORY_GRANULE_BYTES. */
#ifndef KERNELS_CUDA_VIRTUAL_MEMORY_H
#define KERNELS_CUDA_VIRTUAL_MEMORY_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { VIRTUAL_MEMORY_GRANULE_BYTES = 2 << 20, VIRTUAL_MEMORY_LEAST_BYTES = 4 << 20 };

/* Whether allocations of this size are made here: the same for alloc and free. */
bool virtual_memory_serves(int device, size_t bytes);

/* TCA_ERR_NO_MEMORY: nothing is kept. */
enum tca_status virtual_memory_alloc(int device, size_t bytes, void **ptr_out);
/* No work that uses it may be under way. bytes: as allocated. */
void virtual_memory_free(int device, void *ptr, size_t bytes);

#endif
