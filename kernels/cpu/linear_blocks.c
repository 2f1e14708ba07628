/* Matrix products with WEIGHT_BLOCKS weights by oneDNN's bf16 matmul. The threads share pieces of
 * rows, and when those are too few, runs of whole weight blocks too: several rows of a run are
 * computed into a dense tile and copied to their places. */
#include "base/log.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/matmul_cache.h"
#include "kernels/cpu/weight.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Every row count is made of few kinds of pieces, so that few products are compiled. */
enum {
    PIECE_ROWS = 128,     /* of the bulk; the rest is 64, 32, 16 and one of 1 .. 16 */
    TAIL_PIECES = 4,      /* kinds of those */
    RUN_COLS_MOST = 1024, /* so that a tile stays in a core's cache */
    PARTS_PER_THREAD = 2
};

/* Rows of piece `index`, or 0 when the rows are used up. */
struct piece {
    int first;
    int rows;
};

struct blocks_job {
    const struct linear_call *call;
    const struct matmul_cache *cache;
    int runs;
    const struct piece *pieces;
    const struct matmul **matmuls; /* [pieces, runs] */
    unsigned char *scratch;        /* [threads, scratch_bytes + tile_bytes] */
    size_t scratch_bytes;          /* for oneDNN */
    size_t tile_bytes;             /* 0: results go to their places directly */
    atomic_int status;
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* pieces_out: room for rows / PIECE_ROWS + TAIL_PIECES. */
static int cut_rows(int rows, struct piece *pieces_out)
{
    int count = 0;
    int first = 0;
    while (first < rows) {
        int size = PIECE_ROWS;
        while (size > 16 && size > rows - first)
            size /= 2;
        size = least(size, rows - first);
        pieces_out[count++] = (struct piece){first, size};
        first += size;
    }
    return count;
}

/* First output of run `run` of `runs`: they differ by one block at most. */
static int run_start(const struct kernel_weight *weight, int run, int runs)
{
    int blocks = (weight->rows + WEIGHT_BLOCK_ROWS - 1) / WEIGHT_BLOCK_ROWS;
    int start = (int)((int64_t)blocks * run / runs) * WEIGHT_BLOCK_ROWS;
    return least(start, weight->rows);
}

static int count_runs(const struct kernel_weight *weight, int pieces, int threads)
{
    int wanted = PARTS_PER_THREAD * threads;
    if (pieces >= wanted)
        return 1;
    int blocks = (weight->rows + WEIGHT_BLOCK_ROWS - 1) / WEIGHT_BLOCK_ROWS;
    int runs = (wanted + pieces - 1) / pieces;
    int least_runs = (weight->rows + RUN_COLS_MOST - 1) / RUN_COLS_MOST;
    return least(blocks, runs > least_runs ? runs : least_runs);
}

static size_t element_bytes(const struct linear_call *call)
{
    return call->out_dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
}

static void run_part(void *context, int part, int thread)
{
    struct blocks_job *job = context;
    const struct linear_call *call = job->call;
    const struct piece *piece = &job->pieces[part / job->runs];
    int run = part % job->runs;
    int col = run_start(call->weight, run, job->runs);
    size_t row_bytes = (size_t)call->weight->rows * element_bytes(call);
    unsigned char *out = (unsigned char *)call->out + (size_t)piece->first * row_bytes +
                         (size_t)col * element_bytes(call);
    unsigned char *scratch = job->scratch + (size_t)thread * (job->scratch_bytes + job->tile_bytes);
    unsigned char *tile = scratch + job->scratch_bytes;
    bool is_direct = job->runs == 1 || piece->rows == 1;
    struct matmul_operands operands = {.x = call->x +
                                            (size_t)piece->first * (size_t)call->weight->cols,
                                       .weight = weight_block(call->weight, col),
                                       .bias = call->bias ? call->bias + col : NULL,
                                       .out = is_direct ? out : tile,
                                       .scratch = scratch};
    enum tca_status status = matmul_run(job->cache, job->matmuls[part], &operands, thread);
    if (status != TCA_OK)
        atomic_store(&job->status, status);
    if (is_direct)
        return;
    size_t tile_row_bytes =
        (size_t)(run_start(call->weight, run + 1, job->runs) - col) * element_bytes(call);
    for (int row = 0; row < piece->rows; row++)
        memcpy(out + (size_t)row * row_bytes, tile + (size_t)row * tile_row_bytes, tile_row_bytes);
}

static enum tca_status find_matmuls(struct blocks_job *job, struct matmul_cache *cache,
                                    int piece_count)
{
    const struct linear_call *call = job->call;
    matmul_cache_reserve(cache, 2 * (TAIL_PIECES + 1) * 2);
    for (int part = 0; part < piece_count * job->runs; part++) {
        int run = part % job->runs;
        int col = run_start(call->weight, run, job->runs);
        struct matmul_shape shape = {.rows = job->pieces[part / job->runs].rows,
                                     .in = call->weight->cols,
                                     .out = run_start(call->weight, run + 1, job->runs) - col,
                                     .out_dtype = (int)call->out_dtype,
                                     .has_bias = call->bias != NULL};
        TCA_TRY(matmul_cache_find(cache, &shape, &job->matmuls[part]));
        size_t bytes = (matmul_scratch_bytes(job->matmuls[part]) + 63) / 64 * 64;
        if (bytes > job->scratch_bytes)
            job->scratch_bytes = bytes;
        bytes = (size_t)shape.rows * (size_t)shape.out * element_bytes(call);
        if (job->runs > 1 && bytes > job->tile_bytes)
            job->tile_bytes = (bytes + 63) / 64 * 64;
    }
    return TCA_OK;
}

static enum tca_status run_pieces(struct blocks_job *job, struct cpu_queue *queue, int piece_count)
{
    TCA_TRY(find_matmuls(job, queue->matmuls, piece_count));
    size_t thread_bytes = job->scratch_bytes + job->tile_bytes;
    job->scratch = cpu_queue_scratch(queue, 64 + thread_bytes * (size_t)cpu_queue_threads(queue));
    if (!job->scratch)
        return TCA_ERR_NO_MEMORY;
    thread_pool_run(queue->pool, piece_count * job->runs, run_part, job);
    return (enum tca_status)atomic_load(&job->status);
}

enum tca_status linear_blocks(struct cpu_queue *queue, const struct linear_call *call)
{
    struct piece *pieces = calloc((size_t)(call->rows / PIECE_ROWS + TAIL_PIECES), sizeof(*pieces));
    if (!pieces) {
        log_error("no memory to plan a product of %d rows", call->rows);
        return TCA_ERR_NO_MEMORY;
    }
    int piece_count = cut_rows(call->rows, pieces);
    int runs = count_runs(call->weight, piece_count, cpu_queue_threads(queue));
    enum tca_status status = TCA_ERR_NO_MEMORY;
    struct blocks_job job = {.call = call, .cache = queue->matmuls, .runs = runs, .pieces = pieces};
    job.matmuls = calloc((size_t)piece_count * (size_t)runs, sizeof(const struct matmul *));
    if (job.matmuls)
        status = run_pieces(&job, queue, piece_count);
    else
        log_error("no memory to plan a product of %d rows", call->rows);
    free((void *)job.matmuls);
    free(pieces);
    return status;
}
