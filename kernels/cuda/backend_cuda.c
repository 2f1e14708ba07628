#include "kernels/backend.h"
#include "kernels/cuda/ops.h"

#include <cuda_runtime_api.h>

enum { CAPABILITY = 9 }; /* Hopper: what the kernels are compiled for */

static const struct kernel_backend backend = {.name = "cuda",
                                              .activation = KERNEL_BF16,
                                              .step_rows = 4096,
                                              .step_flops = 5e14,
                                              .queue_create = cuda_queue_create,
                                              .queue_destroy = cuda_queue_destroy,
                                              .queue_wait = cuda_queue_wait,
                                              .alloc = cuda_alloc,
                                              .free = cuda_free,
                                              .memory = cuda_memory,
                                              .upload = cuda_upload,
                                              .download = cuda_download,
                                              .copy = cuda_copy,
                                              .zero = cuda_zero,
                                              .weight_create = cuda_weight_create,
                                              .weight_create_dummy = cuda_weight_create_dummy,
                                              .weight_destroy = cuda_weight_destroy,
                                              .weight_bytes = cuda_weight_bytes,
                                              .linear = cuda_linear,
                                              .embed = cuda_embed,
                                              .residual_norm = cuda_residual_norm,
                                              .rope_table = cuda_rope_table,
                                              .rope_append = cuda_rope_append,
                                              .attention = cuda_attention,
                                              .linear_prepare = cuda_linear_prepare,
                                              .attention_prepare = cuda_attention_prepare,
                                              .swiglu = cuda_swiglu,
                                              .take_rows = cuda_take_rows,
                                              .logits_top = cuda_logits_top,
                                              .block_scores = cuda_block_scores,
                                              .observer_lse = cuda_observer_lse,
                                              .block_masses = cuda_block_masses,
                                              .token_scores = cuda_token_scores,
                                              .select = cuda_select,
                                              .gather = cuda_gather,
                                              .attention_merge = cuda_attention_merge,
                                              .kept_masses = cuda_kept_masses,
                                              .interleave = cuda_interleave,
                                              .pick = cuda_pick};

const struct kernel_backend *kernel_backend_cuda(void)
{
    int devices = 0;
    int major = 0;

    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        (void)cudaGetLastError();
        return NULL;
    }
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess ||
        major != CAPABILITY)
        return NULL;
    return &backend;
}
