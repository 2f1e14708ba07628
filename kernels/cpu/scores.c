/* What observing queries think of keys, for TCA's selection: one pass over K with the attention's
 * tile kernels, whose tiles are the selection's blocks.
 *
 * As in attention.c the observers' heads that share a KV head are columns: column c is observer
 * c / group and head c % group. They are packed once; a task is a KV head's run of TASK_TILES
 * tiles against all columns. Tasks write apart, and no head's numbers depend on another's, nor on
 * the threads: any sharding of the heads gives the same bits. */
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <math.h>

_Static_assert((int)ATTENTION_KEYS == (int)SELECT_BLOCK_TOKENS, "a tile is a block");

enum {
    LANES = ATTENTION_LANES,
    TASK_TILES = 16 /* 1,024 keys of one head: they stay in the second-level cache */
};

/* Further than any score can stand from it. */
static const float absent_column = -ATTENTION_LEAST;

struct score_job {
    const struct attention_tile_ops *ops;
    const struct cpu_rows *rows;
    const struct attention_shape *shape;
    const struct attention_segment *keys;
    const uint16_t *q;
    const int32_t *observers;
    const float *lse; /* of token scores */
    float *out;
    int group;
    int columns;       /* observers x group */
    int column_blocks; /* of LANES */
    int64_t tiles;     /* of a head */
    int tasks_per_head;

    unsigned char *packed; /* [kv_heads, column_blocks, attention_head_bytes()] */
    unsigned char *workspaces;
};

/* One thread's buffers. */
struct workspace {
    struct attention_block most; /* of a tile, for its log_sum */
    _Alignas(64) float scores[ATTENTION_TILE_BYTES / sizeof(float)];
    _Alignas(64) float tile_lse[TASK_TILES][LANES];
    _Alignas(64) float offset[LANES];
    _Alignas(64) float peaks[TASK_TILES * ATTENTION_KEYS];
};

/* One head's run of tiles. */
struct score_task {
    int kv_head;
    const uint16_t *k;
    int64_t first_tile;
    int tiles;
    int64_t rows; /* that the head has from the first tile on; may be none, or past the run */
};

static int columns_of_block(const struct score_job *job, int block)
{
    int left = job->columns - block * LANES;
    return left < LANES ? left : LANES;
}

static unsigned char *packed_block(const struct score_job *job, int kv_head, int block)
{
    size_t index = (size_t)kv_head * (size_t)job->column_blocks + (size_t)block;
    return job->packed + index * attention_head_bytes(job->shape->head_dim);
}

/* Row of [count, q_heads] arrays that a column stands for. */
static size_t row_of_column(const struct score_job *job, int kv_head, int column)
{
    size_t head = (size_t)(kv_head * job->group + column % job->group);
    return (size_t)(column / job->group) * (size_t)job->shape->q_heads + head;
}

static void pack_block(void *context, int part, int thread)
{
    const struct score_job *job = context;
    int kv_head = part / job->column_blocks;
    int block = part % job->column_blocks;
    int columns = columns_of_block(job, block);
    const uint16_t *rows[LANES];
    (void)thread;
    for (int i = 0; i < columns; i++) {
        int column = block * LANES + i;
        size_t query = (size_t)job->observers[column / job->group];
        size_t head = (size_t)(kv_head * job->group + column % job->group);
        rows[i] =
            job->q + (query * (size_t)job->shape->q_heads + head) * (size_t)job->shape->head_dim;
    }
    job->ops->pack_queries(packed_block(job, kv_head, block), rows, columns, job->shape->head_dim);
}

static struct score_task open_task(const struct score_job *job, int part)
{
    const struct attention_segment *keys = job->keys;
    struct score_task task = {.kv_head = part / job->tasks_per_head,
                              .first_tile = (int64_t)(part % job->tasks_per_head) * TASK_TILES};
    int64_t left = job->tiles - task.first_tile;
    int64_t first_row = task.first_tile * ATTENTION_KEYS;
    int64_t rows = keys->rows_per_head ? keys->rows_per_head[task.kv_head] : keys->rows;
    task.tiles = left < TASK_TILES ? (int)left : TASK_TILES;
    task.rows = rows > first_row ? rows - first_row : 0;
    task.k = keys->k + cpu_segment_offset(keys, task.kv_head) + first_row * job->shape->head_dim;
    return task;
}

/* Keys of a task's tile; 0 past the head's rows. */
static int tile_keys(const struct score_task *task, int tile)
{
    int64_t left = task->rows - (int64_t)tile * ATTENTION_KEYS;
    return left <= 0 ? 0 : left < ATTENTION_KEYS ? (int)left : ATTENTION_KEYS;
}

static void score_tile(const struct score_job *job, const struct score_task *task, int tile,
                       int block, struct workspace *ws)
{
    int dim = job->shape->head_dim;
    job->ops->scores(ws->scores, &ws->most, packed_block(job, task->kv_head, block),
                     task->k + (int64_t)tile * ATTENTION_KEYS * dim, tile_keys(task, tile), dim,
                     columns_of_block(job, block), false);
}

static void tile_lse(const struct score_job *job, const struct score_task *task, int tile,
                     int block, struct workspace *ws)
{
    int keys = tile_keys(task, tile);
    if (keys == 0) {
        for (int i = 0; i < LANES; i++)
            ws->tile_lse[tile][i] = -INFINITY;
        return;
    }
    score_tile(job, task, tile, block, ws);
    job->ops->log_sum(ws->tile_lse[tile], &ws->most, ws->scores, job->shape->scale * 1.44269504f,
                      keys, columns_of_block(job, block));
}

static void run_block_scores(void *context, int part, int thread)
{
    const struct score_job *job = context;
    struct workspace *ws = (struct workspace *)(void *)job->workspaces + thread;
    struct score_task task = open_task(job, part);
    for (int block = 0; block < job->column_blocks; block++) {
        for (int tile = 0; tile < task.tiles; tile++)
            tile_lse(job, &task, tile, block, ws);
        for (int i = 0; i < columns_of_block(job, block); i++) {
            size_t row = row_of_column(job, task.kv_head, block * LANES + i);
            float *out = job->out + row * (size_t)job->tiles + task.first_tile;
            for (int tile = 0; tile < task.tiles; tile++)
                out[tile] = ws->tile_lse[tile][i];
        }
    }
}

static void set_offsets(const struct score_job *job, int kv_head, int block, float *offset)
{
    int columns = columns_of_block(job, block);
    for (int i = 0; i < LANES; i++) {
        offset[i] = absent_column;
        if (i >= columns)
            continue;
        float lse = job->lse[row_of_column(job, kv_head, block * LANES + i)];
        if (lse > ATTENTION_LEAST) /* not -inf: it sees something */
            offset[i] = lse;
    }
}

static void run_token_scores(void *context, int part, int thread)
{
    const struct score_job *job = context;
    struct workspace *ws = (struct workspace *)(void *)job->workspaces + thread;
    struct score_task task = open_task(job, part);
    for (int i = 0; i < task.tiles * ATTENTION_KEYS; i++)
        ws->peaks[i] = ATTENTION_LEAST;
    for (int block = 0; block < job->column_blocks; block++) {
        set_offsets(job, task.kv_head, block, ws->offset);
        for (int tile = 0; tile < task.tiles && tile_keys(&task, tile) > 0; tile++) {
            score_tile(job, &task, tile, block, ws);
            job->ops->peaks(ws->peaks + tile * ATTENTION_KEYS, ws->scores, ws->offset,
                            job->shape->scale, tile_keys(&task, tile),
                            columns_of_block(job, block));
        }
    }
    int64_t first = task.first_tile * ATTENTION_KEYS;
    int64_t end = job->keys->rows - first;
    int rows = end < task.tiles * ATTENTION_KEYS ? (int)end : task.tiles * ATTENTION_KEYS;
    float *out = job->out + task.kv_head * job->keys->rows + first;
    for (int i = 0; i < rows; i++)
        out[i] = i < task.rows ? ws->peaks[i] : ATTENTION_LEAST;
    job->rows->exp(out, rows);
}

static enum tca_status run_job(struct score_job *job, struct cpu_queue *queue, int count,
                               thread_pool_fn run)
{
    job->rows = cpu_rows(queue->isa);
    job->group = job->shape->q_heads / job->shape->kv_heads;
    job->columns = count * job->group;
    job->ops = attention_tile_ops(queue->isa, job->columns);
    job->column_blocks = (job->columns + LANES - 1) / LANES;
    job->tiles = select_blocks(job->keys->rows);
    job->tasks_per_head = (int)((job->tiles + TASK_TILES - 1) / TASK_TILES);
    int packs = job->shape->kv_heads * job->column_blocks;
    size_t packed_bytes = (size_t)packs * attention_head_bytes(job->shape->head_dim);
    size_t threads = (size_t)cpu_queue_threads(queue);
    job->packed = cpu_queue_scratch(queue, packed_bytes + threads * sizeof(struct workspace));
    if (!job->packed)
        return TCA_ERR_NO_MEMORY;
    job->workspaces = job->packed + packed_bytes;
    thread_pool_run(queue->pool, packs, pack_block, job);
    thread_pool_run(queue->pool, job->shape->kv_heads * job->tasks_per_head, run, job);
    return TCA_OK;
}

enum tca_status cpu_block_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                 const struct attention_shape *shape, const int32_t *observers,
                                 int count, const struct attention_segment *keys)
{
    struct score_job job = {
        .shape = shape, .keys = keys, .q = q, .observers = observers, .out = scores_out};
    return run_job(&job, cpu_queue_from(base), count, run_block_scores);
}

enum tca_status cpu_token_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                 const float *lse, const struct attention_shape *shape,
                                 const int32_t *observers, int count,
                                 const struct attention_segment *keys)
{
    struct score_job job = {.shape = shape,
                            .keys = keys,
                            .q = q,
                            .observers = observers,
                            .lse = lse,
                            .out = scores_out};
    return run_job(&job, cpu_queue_from(base), count, run_token_scores);
}
