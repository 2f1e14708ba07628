/* Matrix products with bf16 weights. The threads share tiles of the output. */
#include "base/log.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Output tile of one part: small enough to balance, large enough to amortise the conversions. */
enum { TILE_ROWS = 64, TILE_COLS = 64 };

struct kernel_weight {
    int rows;       /* outputs */
    int cols;       /* inputs */
    uint16_t *data; /* [rows, cols] bf16, owned */
};

static size_t data_bytes(const struct kernel_weight *weight)
{
    return (size_t)weight->rows * (size_t)weight->cols * sizeof(*weight->data);
}

enum tca_status cpu_weight_create(struct kernel_queue *queue, const uint16_t *host_rows, int rows,
                                  int cols, bool keep_rows, struct kernel_weight **weight_out)
{
    (void)queue;
    (void)keep_rows; /* this layout serves both */
    struct kernel_weight *weight = calloc(1, sizeof(*weight));
    if (!weight) {
        log_error("no memory for a weight");
        return TCA_ERR_NO_MEMORY;
    }
    weight->rows = rows;
    weight->cols = cols;
    void *data;
    enum tca_status status = cpu_alloc(data_bytes(weight), &data);
    if (status != TCA_OK) {
        free(weight);
        return status;
    }
    weight->data = data;
    memcpy(weight->data, host_rows, data_bytes(weight));
    *weight_out = weight;
    return TCA_OK;
}

void cpu_weight_destroy(struct kernel_queue *queue, struct kernel_weight *weight)
{
    (void)queue;
    if (!weight)
        return;
    cpu_free(weight->data, data_bytes(weight));
    free(weight);
}

size_t cpu_weight_bytes(const struct kernel_weight *weight)
{
    return data_bytes(weight);
}

struct linear_job {
    const struct cpu_rows *kernels;
    const struct kernel_weight *weight;
    void *out;
    enum kernel_dtype out_dtype;
    const uint16_t *x;
    const float *bias;
    int rows;
    int col_tiles;
    float *scratch; /* [threads, scratch_floats] */
    size_t scratch_floats;
    atomic_bool failed;
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

static void write_tile(const struct linear_job *job, const float *tile, int row0, int rows,
                       int col0, int cols)
{
    size_t width = (size_t)job->weight->rows;
    for (int row = 0; row < rows; row++) {
        float with_bias[TILE_COLS];
        const float *from = tile + (size_t)row * TILE_COLS;
        for (int col = 0; col < cols; col++)
            with_bias[col] = from[col] + (job->bias ? job->bias[col0 + col] : 0.0f);
        size_t at = (size_t)(row0 + row) * width + (size_t)col0;
        if (job->out_dtype == KERNEL_F32)
            memcpy((float *)job->out + at, with_bias, (size_t)cols * sizeof(float));
        else
            job->kernels->to_bf16((uint16_t *)job->out + at, with_bias, cols);
    }
}

static void linear_tile(void *context, int part, int thread)
{
    struct linear_job *job = context;
    const struct kernel_weight *weight = job->weight;
    int row0 = part / job->col_tiles * TILE_ROWS;
    int col0 = part % job->col_tiles * TILE_COLS;
    int rows = least(TILE_ROWS, job->rows - row0);
    int cols = least(TILE_COLS, weight->rows - col0);
    size_t depth = (size_t)weight->cols;

    float *x = job->scratch + (size_t)thread * job->scratch_floats;
    float *w = x + TILE_ROWS * depth;
    float *tile = w + TILE_COLS * depth;
    for (int row = 0; row < rows; row++)
        job->kernels->to_float(x + (size_t)row * depth, job->x + (size_t)(row0 + row) * depth,
                               weight->cols);
    for (int col = 0; col < cols; col++)
        job->kernels->to_float(w + (size_t)col * depth, weight->data + (size_t)(col0 + col) * depth,
                               weight->cols);

    omp_set_num_threads(1); /* oneDNN must not start threads of its own */
    dnnl_status_t status = dnnl_sgemm('N', 'T', rows, cols, weight->cols, 1.0f, x, weight->cols, w,
                                      weight->cols, 0.0f, tile, TILE_COLS);
    if (status != dnnl_success)
        atomic_store(&job->failed, true);
    write_tile(job, tile, row0, rows, col0, cols);
}

enum tca_status cpu_linear(struct kernel_queue *base, void *out, enum kernel_dtype out_dtype,
                           const uint16_t *x, const struct kernel_weight *weight, const float *bias,
                           int rows)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    size_t floats =
        (size_t)(TILE_ROWS + TILE_COLS) * (size_t)weight->cols + (size_t)TILE_ROWS * TILE_COLS;
    struct linear_job job = {.kernels = cpu_rows(queue->isa),
                             .weight = weight,
                             .out = out,
                             .out_dtype = out_dtype,
                             .x = x,
                             .bias = bias,
                             .rows = rows,
                             .col_tiles = (weight->rows + TILE_COLS - 1) / TILE_COLS,
                             .scratch_floats = (floats + 15) / 16 * 16};
    job.scratch = cpu_queue_scratch(queue, (size_t)cpu_queue_threads(queue) * job.scratch_floats *
                                               sizeof(float));
    if (!job.scratch)
        return TCA_ERR_NO_MEMORY;
    int row_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    thread_pool_run(queue->pool, row_tiles * job.col_tiles, linear_tile, &job);
    if (atomic_load(&job.failed)) {
        log_error("oneDNN failed on a product of %d x %d x %d", rows, weight->rows, weight->cols);
        return TCA_ERR_DEVICE;
    }
    return TCA_OK;
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
            kernels->to_float(to, table->data + (size_t)index * cols, table->cols);
        else
            memset(to, 0, cols * sizeof(*to));
    }
    return TCA_OK;
}
