/* Matrix products with WEIGHT_ROWS weights, for processors without bf16 instructions: tiles are
 * converted to f32 and multiplied by oneDNN's sgemm. The threads share tiles of the output. */
#include "base/log.h"
#include "base/min.h"
#include "base/sum_tree.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/weight.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>
#include <string.h>

/* Output tile of one part: small enough to balance, large enough to amortise the conversions. */
enum { TILE_ROWS = 64, TILE_COLS = 64 };

struct rows_job {
    const struct cpu_rows *kernels;
    const struct linear_call *call;
    int col_tiles;
    float *scratch; /* [threads, scratch_floats] */
    size_t scratch_floats;
    atomic_bool failed;
};

static void write_tile(const struct rows_job *job, const float *tile, int row0, int rows, int col0,
                       int cols)
{
    size_t width = (size_t)job->call->weight->rows;
    for (int row = 0; row < rows; row++) {
        float with_bias[TILE_COLS];
        const float *from = tile + (size_t)row * TILE_COLS;
        for (int col = 0; col < cols; col++)
            with_bias[col] = from[col] + (job->call->bias ? job->call->bias[col0 + col] : 0.0f);
        size_t at = (size_t)(row0 + row) * width + (size_t)col0;
        if (job->call->out_dtype == KERNEL_F32)
            memcpy((float *)job->call->out + at, with_bias, (size_t)cols * sizeof(float));
        else
            job->kernels->to_bf16((uint16_t *)job->call->out + at, with_bias, cols);
    }
}

/* A tile's operands in f32, [TILE_ROWS, depth] and [TILE_COLS, depth]. */
struct operands {
    const struct kernel_weight *weight;
    const float *x, *w;
    int rows, cols;
};

/* tile = the products of parts first .. first + parts - 1, added by the tree; spare: a tile for
 * every sum under way. */
static bool multiply_parts(const struct operands *o, int first, int parts, float *tile,
                           float *spare)
{
    if (parts == 1) {
        const struct weight_part *part = &o->weight->part[first];
        return dnnl_sgemm('N', 'T', o->rows, o->cols, part->cols, 1.0f, o->x + part->first,
                          o->weight->cols, o->w + part->first, o->weight->cols, 0.0f, tile,
                          TILE_COLS) == dnnl_success;
    }
    int left = sum_tree_left(parts);
    if (!multiply_parts(o, first, left, tile, spare) ||
        !multiply_parts(o, first + left, parts - left, spare, spare + TILE_ROWS * TILE_COLS))
        return false;
    for (int row = 0; row < o->rows; row++)
        for (int col = 0; col < o->cols; col++)
            tile[row * TILE_COLS + col] += spare[row * TILE_COLS + col];
    return true;
}

static void run_tile(void *context, int part, int thread)
{
    struct rows_job *job = context;
    const struct kernel_weight *weight = job->call->weight;
    int row0 = part / job->col_tiles * TILE_ROWS;
    int col0 = part % job->col_tiles * TILE_COLS;
    int rows = min_int(TILE_ROWS, job->call->rows - row0);
    int cols = min_int(TILE_COLS, weight->rows - col0);
    size_t depth = (size_t)weight->cols;

    float *x = job->scratch + (size_t)thread * job->scratch_floats;
    float *w = x + TILE_ROWS * depth;
    float *tile = w + TILE_COLS * depth;
    for (int row = 0; row < rows; row++)
        job->kernels->to_float(x + (size_t)row * depth, job->call->x + (size_t)(row0 + row) * depth,
                               weight->cols);
    for (int col = 0; col < cols; col++)
        job->kernels->to_float(w + (size_t)col * depth, weight->data + (size_t)(col0 + col) * depth,
                               weight->cols);

    omp_set_num_threads(1); /* oneDNN must not start threads of its own */
    struct operands operands = {.weight = weight, .x = x, .w = w, .rows = rows, .cols = cols};
    if (!multiply_parts(&operands, 0, weight->parts, tile, tile + TILE_ROWS * TILE_COLS))
        atomic_store(&job->failed, true);
    write_tile(job, tile, row0, rows, col0, cols);
}

enum tca_status linear_rows(struct cpu_queue *queue, const struct linear_call *call)
{
    const struct kernel_weight *weight = call->weight;
    size_t tiles = 1 + (size_t)sum_tree_depth(weight->parts);
    size_t floats =
        (size_t)(TILE_ROWS + TILE_COLS) * (size_t)weight->cols + tiles * TILE_ROWS * TILE_COLS;
    struct rows_job job = {.kernels = cpu_rows(queue->isa),
                           .call = call,
                           .col_tiles = (weight->rows + TILE_COLS - 1) / TILE_COLS,
                           .scratch_floats = (floats + 15) / 16 * 16};
    job.scratch = cpu_queue_scratch(queue, (size_t)cpu_queue_threads(queue) * job.scratch_floats *
                                               sizeof(float));
    if (!job.scratch)
        return TCA_ERR_NO_MEMORY;
    int row_tiles = (call->rows + TILE_ROWS - 1) / TILE_ROWS;
    thread_pool_run(queue->pool, row_tiles * job.col_tiles, run_tile, &job);
    if (atomic_load(&job.failed)) {
        log_error("oneDNN failed on a product of %d x %d x %d", call->rows, weight->rows,
                  weight->cols);
        return TCA_ERR_DEVICE;
    }
    return TCA_OK;
}
