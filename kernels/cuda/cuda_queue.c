#include "kernels/cuda/cuda_queue.h"

#include "base/log.h"
#include "kernels/cuda/algorithm_cache.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sdpa.h"

#include <stdlib.h>

static enum tca_status make_parts(struct cuda_queue *queue)
{
    int device = queue->base.device;

    TCA_TRY(cuda_status(cudaSetDevice(device), "cudaSetDevice"));
    TCA_TRY(cuda_status(
        cudaDeviceGetAttribute(&queue->multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute"));
    TCA_TRY(cuda_status(cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking),
                        "cudaStreamCreate"));
    TCA_TRY(staging_init(&queue->staging, queue->stream));
    TCA_TRY(cublas_status(cublasLtCreate(&queue->blas), "cublasLtCreate"));
    TCA_TRY(cuda_alloc(device, MATMUL_WORKSPACE_BYTES, &queue->matmul_workspace));
    TCA_TRY(algorithm_cache_create(&queue->algorithms));
    TCA_TRY(sdpa_create(queue->stream, &queue->sdpa));
    TCA_TRY(cuda_alloc(device, SCRATCH_BYTES, &queue->scratch));
    TCA_TRY(cuda_alloc(device, TOP_BYTES, &queue->top));
    return cuda_status(cudaMallocHost(&queue->top_host, TOP_BYTES), "cudaMallocHost");
}

enum tca_status cuda_queue_create(int device, int threads, struct kernel_queue **queue_out)
{
    struct cuda_queue *queue;
    enum tca_status status;
    int devices = 0;

    (void)threads;
    TCA_TRY(cuda_status(cudaGetDeviceCount(&devices), "cudaGetDeviceCount"));
    if (device < 0 || device >= devices) {
        log_error("CUDA device %d: this machine has %d", device, devices);
        return TCA_ERR_DEVICE;
    }
    queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return TCA_ERR_NO_MEMORY;
    queue->base.device = device;
    status = make_parts(queue);
    if (status != TCA_OK) {
        cuda_queue_destroy(&queue->base);
        return status;
    }
    *queue_out = &queue->base;
    return TCA_OK;
}

void cuda_queue_destroy(struct kernel_queue *base)
{
    struct cuda_queue *queue = cuda_queue_from(base);

    if (queue == NULL)
        return;
    if (queue->stream != NULL)
        (void)cuda_status(cudaStreamSynchronize(queue->stream), "cudaStreamSynchronize");
    cudaFreeHost(queue->top_host);
    cuda_free(base->device, queue->top, TOP_BYTES);
    cuda_free(base->device, queue->bias, queue->bias_count * sizeof(*queue->bias));
    cuda_free(base->device, queue->scratch, SCRATCH_BYTES);
    sdpa_destroy(queue->sdpa);
    algorithm_cache_destroy(queue->algorithms);
    cuda_free(base->device, queue->matmul_workspace, MATMUL_WORKSPACE_BYTES);
    if (queue->blas != NULL)
        cublasLtDestroy(queue->blas);
    staging_deinit(&queue->staging);
    if (queue->stream != NULL)
        cudaStreamDestroy(queue->stream);
    free(queue);
}

enum tca_status cuda_queue_wait(struct kernel_queue *queue)
{
    return cuda_status(cudaStreamSynchronize(cuda_queue_from(queue)->stream),
                       "cudaStreamSynchronize");
}
