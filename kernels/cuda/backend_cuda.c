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

/* The run-time library's own words: no GPU, or a driver older than it. */
static enum tca_status count_devices(int device, int *devices_out, struct tca_error *error)
{
    const cudaError_t code = cudaGetDeviceCount(devices_out);

    if (code == cudaSuccess)
        return TCA_OK;
    (void)cudaGetLastError();
    return tca_fail(error, TCA_ERR_DEVICE, "GPU %d: %s", device, cudaGetErrorString(code));
}

static enum tca_status check_device(int device, struct tca_error *error)
{
    int devices = 0, major = 0, minor = 0;

    TCA_TRY(count_devices(device, &devices, error));
    if (device >= devices)
        return tca_fail(error, TCA_ERR_DEVICE, "GPU %d is wanted of %d on this host", device,
                        devices);
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        return tca_fail(error, TCA_ERR_DEVICE, "GPU %d does not tell its compute capability",
                        device);
    if (major != CAPABILITY)
        return tca_fail(error, TCA_ERR_UNSUPPORTED,
                        "GPU %d has compute capability %d.%d, allowed: %d.x (Hopper)", device,
                        major, minor, CAPABILITY);
    return TCA_OK;
}

const struct kernel_backend *kernel_backend_cuda(int device, struct tca_error *error)
{
    return check_device(device, error) == TCA_OK ? &backend : NULL;
}
