#include "kernels/cuda/staging.h"

#include "base/log.h"
#include "kernels/cuda/cuda_status.h"

#include <string.h>

enum { ALIGNMENT = 64 };

static const size_t ring_bytes = (size_t)STAGING_SEGMENTS * STAGING_SEGMENT_BYTES;

enum tca_status staging_init(struct staging *staging, cudaStream_t stream)
{
    *staging = (struct staging){.stream = stream};
    TCA_TRY(cuda_status(cudaMallocHost((void **)&staging->host, ring_bytes), "cudaMallocHost"));
    TCA_TRY(cuda_status(cudaMalloc((void **)&staging->device, ring_bytes), "cudaMalloc"));
    for (int i = 0; i < STAGING_SEGMENTS; i++)
        TCA_TRY(cuda_status(cudaEventCreateWithFlags(&staging->copied[i], cudaEventDisableTiming),
                            "cudaEventCreate"));
    return TCA_OK;
}

void staging_deinit(struct staging *staging)
{
    for (int i = 0; i < STAGING_SEGMENTS; i++)
        if (staging->copied[i] != NULL)
            cudaEventDestroy(staging->copied[i]);
    cudaFree(staging->device);
    cudaFreeHost(staging->host);
    *staging = (struct staging){0};
}

static enum tca_status enter_next_segment(struct staging *staging)
{
    TCA_TRY(cuda_status(cudaEventRecord(staging->copied[staging->segment], staging->stream),
                        "cudaEventRecord"));
    staging->segment = (staging->segment + 1) % STAGING_SEGMENTS;
    staging->used_bytes = 0;
    return cuda_status(cudaEventSynchronize(staging->copied[staging->segment]),
                       "cudaEventSynchronize");
}

enum tca_status staging_copy(struct staging *staging, const void *host, size_t bytes,
                             const void **device_out)
{
    size_t place;

    if (bytes > STAGING_SEGMENT_BYTES) {
        log_error("%zu bytes of a step's lists, at most %d fit", bytes, STAGING_SEGMENT_BYTES);
        return TCA_ERR_RANGE;
    }
    if (bytes > STAGING_SEGMENT_BYTES - staging->used_bytes)
        TCA_TRY(enter_next_segment(staging));
    place = (size_t)staging->segment * STAGING_SEGMENT_BYTES + staging->used_bytes;
    memcpy(staging->host + place, host, bytes);
    TCA_TRY(cuda_status(cudaMemcpyAsync(staging->device + place, staging->host + place, bytes,
                                        cudaMemcpyHostToDevice, staging->stream),
                        "cudaMemcpyAsync"));
    staging->used_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *device_out = staging->device + place;
    return TCA_OK;
}
