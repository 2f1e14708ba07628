/* The way of small host arrays to the device without waiting: a ring of pinned memory with a twin
 * on the device.
 *
 * The ring has SEGMENTS segments. A copy goes to the current one; when it is full, an event marks
 * its copies, and the next segment is entered once its own event, a whole turn old, has passed. */
#ifndef KERNELS_CUDA_STAGING_H
#define KERNELS_CUDA_STAGING_H

#include "base/status.h"

#include <cuda_runtime_api.h>

#include <stddef.h>

enum { STAGING_SEGMENTS = 4, STAGING_SEGMENT_BYTES = 8 << 20 };

struct staging {
    cudaStream_t stream; /* borrowed */
    char *host;          /* pinned, owned */
    char *device;        /* owned */
    cudaEvent_t copied[STAGING_SEGMENTS];
    int segment;
    size_t used_bytes; /* of the segment */
};

/* deinit() also cleans up after a failed init(). */
enum tca_status staging_init(struct staging *staging, cudaStream_t stream);
void staging_deinit(struct staging *staging);

/* Enqueue a copy of `bytes` at `host`, which may be reused at once. *device_out is 64-byte aligned
 * and keeps the data for what is enqueued before the ring comes round. TCA_ERR_RANGE: more than
 * STAGING_SEGMENT_BYTES. */
enum tca_status staging_copy(struct staging *staging, const void *host, size_t bytes,
                             const void **device_out);

#endif
