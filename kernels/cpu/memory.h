/* Host memory as the CPU backend's device memory. */
#ifndef KERNELS_CPU_MEMORY_H
#define KERNELS_CPU_MEMORY_H

#include "base/status.h"

#include <stddef.h>

/* 64-byte aligned, not cleared. TCA_ERR_NO_MEMORY (logged). */
enum tca_status cpu_alloc(size_t bytes, void **ptr_out);
/* `bytes` as it was asked for; NULL is a no-op. A large block goes back to the system. */
void cpu_free(void *ptr, size_t bytes);

/* Memory that this process may use, and what is left of it: the machine's, or its control
 * group's limit when that is less. */
enum tca_status cpu_memory(size_t *total_bytes_out, size_t *free_bytes_out);

#endif
