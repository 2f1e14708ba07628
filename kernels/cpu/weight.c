#include "kernels/cpu/weight.h"

#include "base/log.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_ROWS = WEIGHT_BLOCK_ROWS };

static size_t round_up(int value, int multiple)
{
    return ((size_t)value + (size_t)multiple - 1) / (size_t)multiple * (size_t)multiple;
}

static size_t padded_cols(const struct kernel_weight *weight)
{
    return round_up(weight->cols, WEIGHT_BLOCK_COLS);
}

const uint16_t *weight_block(const struct kernel_weight *weight, int row)
{
    return weight->data + (size_t)row * padded_cols(weight);
}

struct pack_job {
    struct kernel_weight *weight;
    const uint16_t *rows;
};

static void pack_block(void *context, int block, int thread)
{
    (void)thread;
    const struct pack_job *job = context;
    const struct kernel_weight *weight = job->weight;
    size_t cols = (size_t)weight->cols;
    size_t padded = padded_cols(weight);
    int first = block * BLOCK_ROWS;
    uint16_t *out = weight->data + (size_t)first * padded;
    memset(out, 0, BLOCK_ROWS * padded * sizeof(*out));
    for (int row = 0; row < BLOCK_ROWS && first + row < weight->rows; row++) {
        const uint16_t *in = job->rows + (size_t)(first + row) * cols;
        for (size_t col = 0; col < cols; col++)
            out[(col / 2 * BLOCK_ROWS + (size_t)row) * 2 + col % 2] = in[col];
    }
}

enum tca_status cpu_weight_create(struct kernel_queue *base, const uint16_t *host_rows, int rows,
                                  int cols, bool keep_rows, struct kernel_weight **weight_out)
{
    (void)keep_rows; /* either layout serves embed */
    struct cpu_queue *queue = cpu_queue_from(base);
    struct kernel_weight *weight = calloc(1, sizeof(*weight));
    if (!weight) {
        log_error("no memory for a weight");
        return TCA_ERR_NO_MEMORY;
    }
    bool has_blocks = queue->isa == CPU_ISA_AVX512_BF16;
    *weight = (struct kernel_weight){
        .layout = has_blocks ? WEIGHT_BLOCKS : WEIGHT_ROWS, .rows = rows, .cols = cols};
    weight->bytes = (has_blocks ? round_up(rows, BLOCK_ROWS) * padded_cols(weight)
                                : (size_t)rows * (size_t)cols) *
                    sizeof(*weight->data);
    void *data;
    enum tca_status status = cpu_alloc(weight->bytes, &data);
    if (status != TCA_OK) {
        free(weight);
        return status;
    }
    weight->data = data;
    if (has_blocks) {
        struct pack_job job = {weight, host_rows};
        thread_pool_run(queue->pool, (rows + BLOCK_ROWS - 1) / BLOCK_ROWS, pack_block, &job);
    } else {
        memcpy(data, host_rows, weight->bytes);
    }
    *weight_out = weight;
    return TCA_OK;
}

void cpu_weight_destroy(struct kernel_queue *base, struct kernel_weight *weight)
{
    (void)base;
    if (!weight)
        return;
    cpu_free(weight->data, weight->bytes);
    free(weight);
}

size_t cpu_weight_bytes(const struct kernel_weight *weight)
{
    return weight->bytes;
}

static void row_to_float(const struct kernel_weight *weight, const struct cpu_rows *kernels,
                         size_t row, float *out)
{
    size_t cols = (size_t)weight->cols;
    if (weight->layout == WEIGHT_ROWS) {
        kernels->to_float(out, weight->data + row * cols, weight->cols);
        return;
    }
    const uint16_t *block = weight->data + row / BLOCK_ROWS * BLOCK_ROWS * padded_cols(weight);
    for (size_t col = 0; col < cols; col++)
        out[col] = bf16_to_float(block[(col / 2 * BLOCK_ROWS + row % BLOCK_ROWS) * 2 + col % 2]);
}

enum tca_status cpu_embed(struct kernel_queue *base, float *out, const struct kernel_weight *table,
                          const int32_t *ids, int rows, int first_id)
{
    const struct cpu_rows *kernels = cpu_rows(cpu_queue_from(base)->isa);
    size_t cols = (size_t)table->cols;
    for (int row = 0; row < rows; row++) {
        float *to = out + (size_t)row * cols;
        int64_t index = (int64_t)ids[row] - first_id;
        if (index >= 0 && index < table->rows)
            row_to_float(table, kernels, (size_t)index, to);
        else
            memset(to, 0, cols * sizeof(*to));
    }
    return TCA_OK;
}
