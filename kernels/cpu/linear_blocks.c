/* Matrix products with WEIGHT_BLOCKS weights by oneDNN's bf16 matmul. The threads share pieces of
 * rows, and when those are too few, runs of whole weight blocks too: several rows of a run are
 * computed into a dense tile and copied to their places. A weight of several parts is a product a
 * part, in f32, added while the tile is in cache. */
#include "base/bf16.h"
#include "base/log.h"
#include "base/min.h"
#include "base/sum_tree.h"
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
    const struct matmul **matmuls; /* [pieces, runs, weight parts] */
    unsigned char *scratch;        /* [threads, what thread_bytes() says] */
    size_t scratch_bytes;          /* for oneDNN */
    size_t tile_bytes;             /* of the largest tile */
    size_t x_bytes;                /* of a part's inputs beside each other; 0: they are already */
    atomic_int status;
};

/* pieces_out: room for rows / PIECE_ROWS + TAIL_PIECES. */
static int cut_rows(int rows, struct piece *pieces_out)
{
    int count = 0;
    int first = 0;
    while (first < rows) {
        int size = PIECE_ROWS;
        while (size > 16 && size > rows - first)
            size /= 2;
        size = min_int(size, rows - first);
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
    return min_int(start, weight->rows);
}

static int count_runs(const struct kernel_weight *weight, int pieces, int threads)
{
    int wanted = PARTS_PER_THREAD * threads;
    if (pieces >= wanted)
        return 1;
    int blocks = (weight->rows + WEIGHT_BLOCK_ROWS - 1) / WEIGHT_BLOCK_ROWS;
    int runs = (wanted + pieces - 1) / pieces;
    int least_runs = (weight->rows + RUN_COLS_MOST - 1) / RUN_COLS_MOST;
    return min_int(blocks, runs > least_runs ? runs : least_runs);
}

static size_t element_bytes(enum kernel_dtype dtype)
{
    return dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* Parts are added in f32, whatever the output. */
static enum kernel_dtype tile_dtype(const struct linear_call *call)
{
    return call->weight->parts > 1 ? KERNEL_F32 : call->out_dtype;
}

/* The result's tile, one for every sum under way, oneDNN's scratch and a part's inputs. */
static size_t thread_bytes(const struct blocks_job *job)
{
    size_t tiles = 1 + (size_t)sum_tree_depth(job->call->weight->parts);
    return job->scratch_bytes + tiles * job->tile_bytes + job->x_bytes;
}

/* One piece of rows of one run of outputs, by one thread. */
struct tile {
    const struct blocks_job *job;
    const struct piece *piece;
    const struct matmul **matmuls; /* [weight parts] */
    int col, cols;
    int thread;
    unsigned char *scratch; /* oneDNN's */
    uint16_t *x;            /* room for a part's inputs */
};

static enum tca_status multiply_part(const struct tile *tile, int p, void *out)
{
    const struct linear_call *call = tile->job->call;
    const struct weight_part *part = &call->weight->part[p];
    size_t cols = (size_t)call->weight->cols, part_cols = (size_t)part->cols;
    const uint16_t *x = call->x + (size_t)tile->piece->first * cols + part->first;
    if (call->weight->parts > 1 && tile->piece->rows > 1) {
        for (int row = 0; row < tile->piece->rows; row++)
            memcpy(tile->x + (size_t)row * part_cols, x + (size_t)row * cols,
                   part_cols * sizeof(*x));
        x = tile->x;
    }
    struct matmul_operands operands = {.x = x,
                                       .weight = weight_block(call->weight, part, tile->col),
                                       .bias = call->bias && p == 0 ? call->bias + tile->col : NULL,
                                       .out = out,
                                       .scratch = tile->scratch};
    return matmul_run(tile->job->cache, tile->matmuls[p], &operands, tile->thread);
}

/* out = the products of parts first .. first + parts - 1, added by the tree. */
static enum tca_status multiply_parts(const struct tile *tile, int first, int parts, void *out,
                                      unsigned char *spare)
{
    if (parts == 1)
        return multiply_part(tile, first, out);
    int left = sum_tree_left(parts);
    TCA_TRY(multiply_parts(tile, first, left, out, spare));
    TCA_TRY(multiply_parts(tile, first + left, parts - left, spare, spare + tile->job->tile_bytes));
    float *sum = out;
    const float *right = (const float *)(const void *)spare;
    size_t count = (size_t)tile->piece->rows * (size_t)tile->cols;
    for (size_t i = 0; i < count; i++)
        sum[i] += right[i];
    return TCA_OK;
}

/* Copy a dense tile to its columns of the output. */
static void place_tile(const struct tile *tile, const unsigned char *from)
{
    const struct linear_call *call = tile->job->call;
    size_t row_bytes = (size_t)tile->cols * element_bytes(tile_dtype(call));
    for (int row = 0; row < tile->piece->rows; row++) {
        size_t at =
            (size_t)(tile->piece->first + row) * (size_t)call->weight->rows + (size_t)tile->col;
        unsigned char *to = (unsigned char *)call->out + at * element_bytes(call->out_dtype);
        if (tile_dtype(call) == call->out_dtype) {
            memcpy(to, from + (size_t)row * row_bytes, row_bytes);
            continue;
        }
        const float *sums = (const float *)(const void *)(from + (size_t)row * row_bytes);
        for (int col = 0; col < tile->cols; col++)
            ((uint16_t *)(void *)to)[col] = bf16_from_float(sums[col]);
    }
}

static void run_part(void *context, int part, int thread)
{
    struct blocks_job *job = context;
    const struct linear_call *call = job->call;
    int run = part % job->runs, parts = call->weight->parts;
    int col = run_start(call->weight, run, job->runs);
    unsigned char *memory = job->scratch + (size_t)thread * thread_bytes(job);
    unsigned char *spare = memory + job->scratch_bytes + job->tile_bytes;
    struct tile tile = {.job = job,
                        .piece = &job->pieces[part / job->runs],
                        .matmuls = &job->matmuls[(size_t)part * (size_t)parts],
                        .col = col,
                        .cols = run_start(call->weight, run + 1, job->runs) - col,
                        .thread = thread,
                        .scratch = memory};
    tile.x = (uint16_t *)(void *)(memory + thread_bytes(job) - job->x_bytes);
    bool is_direct =
        (job->runs == 1 || tile.piece->rows == 1) && tile_dtype(call) == call->out_dtype;
    size_t at = (size_t)tile.piece->first * (size_t)call->weight->rows + (size_t)col;
    unsigned char *out = is_direct
                             ? (unsigned char *)call->out + at * element_bytes(call->out_dtype)
                             : memory + job->scratch_bytes;
    enum tca_status status = multiply_parts(&tile, 0, parts, out, spare);
    if (status != TCA_OK)
        atomic_store(&job->status, status);
    else if (!is_direct)
        place_tile(&tile, out);
}

static size_t round_up_64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static void grow(size_t *bytes, size_t wanted)
{
    if (round_up_64(wanted) > *bytes)
        *bytes = round_up_64(wanted);
}

static enum tca_status find_matmuls(struct blocks_job *job, struct matmul_cache *cache,
                                    int piece_count)
{
    const struct linear_call *call = job->call;
    const struct kernel_weight *weight = call->weight;
    const struct matmul **next = job->matmuls;
    /* Kinds of pieces and of runs, with the bias and without; parts of a width are alike. */
    matmul_cache_reserve(cache, 2 * (TAIL_PIECES + 1) * 2 * weight->widths);
    for (int part = 0; part < piece_count * job->runs; part++) {
        int run = part % job->runs;
        int col = run_start(weight, run, job->runs);
        struct matmul_shape shape = {.rows = job->pieces[part / job->runs].rows,
                                     .out = run_start(weight, run + 1, job->runs) - col,
                                     .out_dtype = (int)tile_dtype(call)};
        grow(&job->tile_bytes,
             (size_t)shape.rows * (size_t)shape.out * element_bytes(tile_dtype(call)));
        for (int p = 0; p < weight->parts; p++, next++) {
            shape.in = weight->part[p].cols;
            shape.has_bias = call->bias != NULL && p == 0;
            TCA_TRY(matmul_cache_find(cache, &shape, next));
            grow(&job->scratch_bytes, matmul_scratch_bytes(*next));
            if (weight->parts > 1)
                grow(&job->x_bytes, (size_t)shape.rows * (size_t)shape.in * sizeof(uint16_t));
        }
    }
    return TCA_OK;
}

static enum tca_status run_pieces(struct blocks_job *job, struct cpu_queue *queue, int piece_count)
{
    TCA_TRY(find_matmuls(job, queue->matmuls, piece_count));
    job->scratch =
        cpu_queue_scratch(queue, 64 + thread_bytes(job) * (size_t)cpu_queue_threads(queue));
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
    job.matmuls = calloc((size_t)piece_count * (size_t)runs * (size_t)call->weight->parts,
                         sizeof(const struct matmul *));
    if (job.matmuls)
        status = run_pieces(&job, queue, piece_count);
    else
        log_error("no memory to plan a product of %d rows", call->rows);
    free((void *)job.matmuls);
    free(pieces);
    return status;
}
