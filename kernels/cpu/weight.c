#include "kernels/cpu/weight.h"

#include "base/bf16.h"
#include "base/log.h"
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

static size_t padded_cols(const struct weight_part *part)
{
    return round_up(part->cols, WEIGHT_BLOCK_COLS);
}

const uint16_t *weight_block(const struct kernel_weight *weight, const struct weight_part *part,
                             int row)
{
    return weight->data + part->offset + (size_t)row * padded_cols(part);
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
    int first = block * BLOCK_ROWS;
    for (int p = 0; p < weight->parts; p++) {
        const struct weight_part *part = &weight->part[p];
        size_t padded = padded_cols(part);
        uint16_t *out = weight->data + part->offset + (size_t)first * padded;
        memset(out, 0, BLOCK_ROWS * padded * sizeof(*out));
        for (int row = 0; row < BLOCK_ROWS && first + row < weight->rows; row++) {
            const uint16_t *in =
                job->rows + (size_t)(first + row) * (size_t)weight->cols + part->first;
            for (size_t col = 0; col < (size_t)part->cols; col++)
                out[(col / 2 * BLOCK_ROWS + (size_t)row) * 2 + col % 2] = in[col];
        }
    }
}

static bool is_new_width(const int *part_cols, int part)
{
    for (int p = 0; p < part; p++)
        if (part_cols[p] == part_cols[part])
            return false;
    return true;
}

/* A weight without its data. */
static struct kernel_weight *new_weight(const struct cpu_queue *queue, int rows,
                                        const int *part_cols, int parts)
{
    struct kernel_weight *weight = calloc(1, sizeof(*weight));
    struct weight_part *part = calloc((size_t)parts, sizeof(*part));
    if (!weight || !part) {
        log_error("no memory for a weight");
        free(part);
        free(weight);
        return NULL;
    }
    bool has_blocks = queue->isa == CPU_ISA_AVX512_BF16;
    *weight = (struct kernel_weight){.layout = has_blocks ? WEIGHT_BLOCKS : WEIGHT_ROWS,
                                     .rows = rows,
                                     .parts = parts,
                                     .part = part};
    size_t elements = 0;
    for (int p = 0; p < parts; p++) {
        part[p] = (struct weight_part){weight->cols, part_cols[p], elements};
        weight->cols += part_cols[p];
        weight->widths += is_new_width(part_cols, p);
        elements += has_blocks ? round_up(rows, BLOCK_ROWS) * padded_cols(&part[p])
                               : (size_t)rows * (size_t)part_cols[p];
    }
    weight->bytes = elements * sizeof(*weight->data);
    return weight;
}

enum tca_status cpu_weight_create_parts(struct kernel_queue *base, const uint16_t *host_rows,
                                        int rows, const int *part_cols, int parts,
                                        struct kernel_weight **weight_out)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct kernel_weight *weight = new_weight(queue, rows, part_cols, parts);
    if (!weight)
        return TCA_ERR_NO_MEMORY;
    void *data;
    enum tca_status status = cpu_alloc(weight->bytes, &data);
    if (status != TCA_OK) {
        free(weight->part);
        free(weight);
        return status;
    }
    weight->data = data;
    if (weight->layout == WEIGHT_BLOCKS) {
        struct pack_job job = {weight, host_rows};
        thread_pool_run(queue->pool, (rows + BLOCK_ROWS - 1) / BLOCK_ROWS, pack_block, &job);
    } else {
        memcpy(data, host_rows, weight->bytes);
    }
    *weight_out = weight;
    return TCA_OK;
}

enum tca_status cpu_weight_create(struct kernel_queue *base, const uint16_t *host_rows, int rows,
                                  int cols, bool keep_rows, struct kernel_weight **weight_out)
{
    (void)keep_rows; /* either layout serves embed */
    return cpu_weight_create_parts(base, host_rows, rows, &cols, 1, weight_out);
}

void cpu_weight_destroy(struct kernel_queue *base, struct kernel_weight *weight)
{
    (void)base;
    if (!weight)
        return;
    cpu_free(weight->data, weight->bytes);
    free(weight->part);
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
    for (int p = 0; p < weight->parts; p++) {
        const struct weight_part *part = &weight->part[p];
        const uint16_t *block = weight_block(weight, part, (int)(row / BLOCK_ROWS) * BLOCK_ROWS);
        for (size_t col = 0; col < (size_t)part->cols; col++)
            *out++ = bf16_to_float(block[(col / 2 * BLOCK_ROWS + row % BLOCK_ROWS) * 2 + col % 2]);
    }
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
