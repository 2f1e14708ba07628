/* The CPU backend's table. "Enqueued" work has finished when a call returns, so queue_wait and
 * the copies have nothing to wait for. */
#include "base/log.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/ops.h"

#include <string.h>

static bool is_device(int device)
{
    if (device == 0)
        return true;
    log_error("no CPU device %d: there is only 0", device);
    return false;
}

static enum tca_status queue_create(int device, int threads, struct kernel_queue **queue_out)
{
    if (!is_device(device))
        return TCA_ERR_DEVICE;
    return cpu_queue_create(threads, cpu_isa_detect(), queue_out);
}

static enum tca_status queue_wait(struct kernel_queue *queue)
{
    (void)queue;
    return TCA_OK;
}

static enum tca_status alloc(int device, size_t bytes, void **ptr_out)
{
    if (!is_device(device))
        return TCA_ERR_DEVICE;
    return cpu_alloc(bytes, ptr_out);
}

static void free_block(int device, void *ptr, size_t bytes)
{
    (void)device;
    cpu_free(ptr, bytes);
}

static enum tca_status memory(int device, size_t *total_bytes_out, size_t *free_bytes_out)
{
    if (!is_device(device))
        return TCA_ERR_DEVICE;
    return cpu_memory(total_bytes_out, free_bytes_out);
}

static enum tca_status copy(struct kernel_queue *queue, void *to, const void *from, size_t bytes)
{
    (void)queue;
    if (bytes > 0)
        memcpy(to, from, bytes);
    return TCA_OK;
}

static enum tca_status zero(struct kernel_queue *queue, void *device, size_t bytes)
{
    (void)queue;
    if (bytes > 0)
        memset(device, 0, bytes);
    return TCA_OK;
}

static const struct kernel_backend backend_cpu = {
    .name = "cpu",
    .activation = KERNEL_F32,
    .step_rows = 1024,
    .step_flops = 4e11,
    .queue_create = queue_create,
    .queue_destroy = cpu_queue_destroy,
    .queue_wait = queue_wait,
    .alloc = alloc,
    .free = free_block,
    .memory = memory,
    .upload = copy,
    .download = copy,
    .copy = copy,
    .zero = zero,
    .weight_create = cpu_weight_create,
    .weight_create_parts = cpu_weight_create_parts,
    .weight_destroy = cpu_weight_destroy,
    .weight_bytes = cpu_weight_bytes,
    .linear = cpu_linear,
    .embed = cpu_embed,
    .residual_norm = cpu_residual_norm,
    .rope_table = cpu_rope_table,
    .rope_append = cpu_rope_append,
    .attention = cpu_attention,
    .swiglu = cpu_swiglu,
    .take_rows = cpu_take_rows,
    .logits_top = cpu_logits_top,
    .block_scores = cpu_block_scores,
    .observer_lse = cpu_observer_lse,
    .block_masses = cpu_block_masses,
    .token_scores = cpu_token_scores,
    .select = cpu_select,
    .gather = cpu_gather,
    .attention_merge = cpu_attention_merge,
    .kept_masses = cpu_kept_masses,
    .interleave = cpu_interleave,
    .pick = cpu_pick,
};

const struct kernel_backend *kernel_backend_cpu(void)
{
    return &backend_cpu;
}
