#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/virtual_memory.h"

enum tca_status cuda_alloc(int device, size_t bytes, void **ptr_out)
{
    TCA_TRY(cuda_status(cudaSetDevice(device), "cudaSetDevice"));
    if (virtual_memory_serves(device, bytes))
        return virtual_memory_alloc(device, bytes, ptr_out);
    return cuda_status(cudaMalloc(ptr_out, bytes > 0 ? bytes : 1), "cudaMalloc");
}

void cuda_free(int device, void *ptr, size_t bytes)
{
    if (ptr == NULL || cuda_status(cudaSetDevice(device), "cudaSetDevice") != TCA_OK)
        return;
    if (!virtual_memory_serves(device, bytes)) {
        (void)cuda_status(cudaFree(ptr), "cudaFree"); /* waits for work that may still use it */
        return;
    }
    (void)cuda_status(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); /* unmapping does not */
    virtual_memory_free(device, ptr, bytes);
}

/* Kernels are loaded when they first run, and NCCL connects to peers when they first talk. */
enum { LIBRARIES_BYTES = 512 << 20 };

enum tca_status cuda_memory(int device, size_t *total_bytes_out, size_t *free_bytes_out)
{
    size_t free_bytes = 0;

    TCA_TRY(cuda_status(cudaSetDevice(device), "cudaSetDevice"));
    TCA_TRY(cuda_status(cudaMemGetInfo(&free_bytes, total_bytes_out), "cudaMemGetInfo"));
    *free_bytes_out = free_bytes > LIBRARIES_BYTES ? free_bytes - LIBRARIES_BYTES : 0;
    return TCA_OK;
}

/* Large copies wait, so that `host` may be reused; small ones go through the ring. */
enum tca_status cuda_upload(struct kernel_queue *base, void *device, const void *host, size_t bytes)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    const void *staged;

    if (bytes > STAGING_SEGMENT_BYTES) {
        TCA_TRY(
            cuda_status(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, queue->stream),
                        "cudaMemcpyAsync"));
        return cuda_queue_wait(base);
    }
    TCA_TRY(staging_copy(&queue->staging, host, bytes, &staged));
    return cuda_status(
        cudaMemcpyAsync(device, staged, bytes, cudaMemcpyDeviceToDevice, queue->stream),
        "cudaMemcpyAsync");
}

enum tca_status cuda_download(struct kernel_queue *base, void *host, const void *device,
                              size_t bytes)
{
    TCA_TRY(cuda_status(
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_queue_from(base)->stream),
        "cudaMemcpyAsync"));
    return cuda_queue_wait(base);
}

enum tca_status cuda_copy(struct kernel_queue *base, void *to, const void *from, size_t bytes)
{
    return cuda_status(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_queue_from(base)->stream),
        "cudaMemcpyAsync");
}

enum tca_status cuda_zero(struct kernel_queue *base, void *device, size_t bytes)
{
    return cuda_status(cudaMemsetAsync(device, 0, bytes, cuda_queue_from(base)->stream),
                       "cudaMemsetAsync");
}
