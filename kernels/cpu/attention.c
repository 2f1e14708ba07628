/* Softmax attention with a running maximum and sum, so that nothing grows with queries x keys.
 *
 * The queries of all heads that share a KV head are columns: column c is query c / group of head
 * c % group. A part of the work is up to TASK_BLOCKS blocks of columns against a range of keys;
 * keys are walked in tiles, each packed once for all blocks. When there are too few columns to
 * occupy the threads (decoding), the keys are split too, and the partial sums merged. How the
 * keys are split depends on the item and the group's size alone: any number of threads, of heads
 * and of other items gives the same bits. */
#include "base/log.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES = ATTENTION_LANES,
    TASK_BLOCKS = 4,
    TASKS_WANTED = 8, /* of an item and KV head; fewer are split by keys */
    SPLIT_KEYS = 1024 /* but not below this */
};

struct task {
    const struct attention_tile_ops *ops;
    const struct attention_item *item;
    int kv_head;
    int first_column;
    int columns;
    int64_t first_key, end_key; /* of the segments' visible rows put end to end */
    int partial;                /* index of its first block's partial sums, -1: it is whole */
};

/* Tasks that share their columns, to be merged. */
struct merge {
    const struct task *first;
    int splits;
};

struct attention_job {
    enum cpu_isa isa;
    const struct cpu_rows *rows;
    const struct attention_shape *shape;
    int group;
    const uint16_t *q;
    uint16_t *out;
    float *lse;

    struct task *tasks; /* owned */
    int task_count;
    struct merge *merges; /* owned */
    int merge_count;
    int partial_count;

    unsigned char *scratch; /* [threads, thread_bytes], then the partial sums */
    size_t thread_bytes;
    struct partial *partials; /* [partial_count] in the scratch, followed by their acc */
    float *partial_acc;       /* [partial_count, attention_head_bytes()] */
};

/* What one task left of one block, beside its sums of values. */
struct partial {
    float most[LANES];
    float sum[LANES];
};

/* A block of columns while a task runs. */
struct column_block {
    struct attention_block softmax;
    int64_t visible[LANES]; /* rows of the current segment that the column sees */
    int64_t visible_least, visible_most;
    int columns;
    void *q;    /* packed */
    float *acc; /* sums of values */
};

/* One thread's buffers. */
struct workspace {
    struct column_block blocks[TASK_BLOCKS];
    void *v; /* packed */
    float *scores;
    void *weights;
};

const struct attention_tile_ops *attention_tile_ops(enum cpu_isa isa, int columns)
{
    switch (isa) {
#if defined(__x86_64__)
    case CPU_ISA_AVX512_BF16:
        return columns <= attention_decode_avx512.columns_most ? &attention_decode_avx512
                                                               : &attention_tile_avx512;
    case CPU_ISA_AVX2:
        return &attention_tile_avx2;
#else
    case CPU_ISA_AVX512_BF16:
    case CPU_ISA_AVX2:
#endif
    case CPU_ISA_PORTABLE:
        break;
    }
    (void)columns;
    return &attention_tile_portable;
}

size_t attention_head_bytes(int head_dim)
{
    /* The decode kernels' rows have a fixed stride: 8 of 256 floats. */
    return (size_t)(head_dim < 32 ? 32 : head_dim) * LANES * sizeof(float);
}

/* Floats of acc that `columns` of them use. */
static size_t acc_floats(const struct attention_tile_ops *ops, int head_dim, int columns)
{
    return ops->column_stride == 1 ? (size_t)head_dim * (size_t)ops->dim_stride
                                   : (size_t)columns * (size_t)ops->column_stride;
}

static size_t workspace_bytes(const struct attention_shape *shape)
{
    size_t head = (sizeof(struct workspace) + 63) / 64 * 64;
    return head + (2 * TASK_BLOCKS + 1) * attention_head_bytes(shape->head_dim) +
           2 * ATTENTION_TILE_BYTES;
}

static struct workspace *open_workspace(const struct attention_job *job, int thread)
{
    unsigned char *at = job->scratch + (size_t)thread * job->thread_bytes;
    size_t head_bytes = attention_head_bytes(job->shape->head_dim);
    struct workspace *ws = (struct workspace *)at;
    at += (sizeof(*ws) + 63) / 64 * 64;
    for (int i = 0; i < TASK_BLOCKS; i++) {
        ws->blocks[i].q = at;
        ws->blocks[i].acc = (float *)(at + head_bytes);
        at += 2 * head_bytes;
    }
    ws->v = at;
    ws->scores = (float *)(at + head_bytes);
    ws->weights = at + head_bytes + ATTENTION_TILE_BYTES;
    return ws;
}

/* Row of q, out and lse, in heads, that a column stands for. */
static size_t row_of_column(const struct attention_job *job, const struct task *task, int column)
{
    int query = task->item->first_query + column / job->group;
    int head = task->kv_head * job->group + column % job->group;
    return (size_t)query * (size_t)job->shape->q_heads + (size_t)head;
}

static int64_t visible_rows(const struct attention_item *item, int segment, int kv_head, int query)
{
    const struct attention_segment *s = &item->segment[segment];
    if (s->rows_per_head)
        return s->rows_per_head[kv_head];
    if (!s->causal)
        return s->rows;
    int64_t rows = s->rows - item->queries + query + 1;
    return rows > 0 ? rows : 0;
}

/* The most that any of the task's columns sees of a segment: what its last column sees. */
static int64_t task_rows(const struct attention_job *job, const struct task *task, int segment)
{
    int last_query = (task->first_column + task->columns - 1) / job->group;
    return visible_rows(task->item, segment, task->kv_head, last_query);
}

static int64_t task_keys(const struct attention_job *job, const struct task *task)
{
    int64_t keys = 0;
    for (int s = 0; s < task->item->segments; s++)
        keys += task_rows(job, task, s);
    return keys;
}

static void start_block(const struct attention_job *job, const struct task *task, int index,
                        struct column_block *block)
{
    const uint16_t *rows[LANES];
    int first = task->first_column + index * LANES;
    int left = task->columns - index * LANES;
    size_t dim = (size_t)job->shape->head_dim;
    block->columns = left < LANES ? left : LANES;
    for (int i = 0; i < block->columns; i++)
        rows[i] = job->q + row_of_column(job, task, first + i) * dim;
    task->ops->pack_queries(block->q, rows, block->columns, job->shape->head_dim);
    for (int lane = 0; lane < LANES; lane++) {
        block->softmax.most[lane] = ATTENTION_LEAST;
        block->softmax.sum[lane] = 0;
    }
    memset(block->acc, 0,
           acc_floats(task->ops, job->shape->head_dim, block->columns) * sizeof(float));
}

static void enter_segment(const struct attention_job *job, const struct task *task, int segment,
                          int index, struct column_block *block)
{
    int first = task->first_column + index * LANES;
    for (int i = 0; i < LANES; i++) {
        int column = first + (i < block->columns ? i : block->columns - 1);
        block->visible[i] = visible_rows(task->item, segment, task->kv_head, column / job->group);
    }
    block->visible_least = block->visible[0]; /* later columns never see less */
    block->visible_most = block->visible[LANES - 1];
}

/* A tile of keys, `first_key` rows into the segment. */
struct key_tile {
    const uint16_t *k;
    const void *v; /* packed, where the kernels want that */
    int64_t first_key;
    int keys;
};

static void attend_tile(const struct attention_job *job, const struct attention_tile_ops *ops,
                        struct workspace *ws, struct column_block *block,
                        const struct key_tile *tile)
{
    int64_t rows = block->visible_most - tile->first_key;
    if (rows <= 0)
        return;
    int keys = rows < tile->keys ? (int)rows : tile->keys;
    bool is_masked = block->visible_least - tile->first_key < keys;
    for (int lane = 0; is_masked && lane < LANES; lane++) {
        int64_t limit = block->visible[lane] - tile->first_key;
        block->softmax.limit[lane] = limit < 0 ? 0 : limit < keys ? (int32_t)limit : keys;
    }
    int dim = job->shape->head_dim;
    int columns = block->columns;
    float scale = job->shape->scale * 1.44269504f; /* exp2, not exp */
    ops->scores(ws->scores, &block->softmax, block->q, tile->k, keys, dim, columns, is_masked);
    ops->softmax(ws->weights, &block->softmax, ws->scores, scale, keys, columns);
    ops->values(block->acc, &block->softmax, ws->weights, tile->v, keys, dim, columns);
}

static void attend_segment(const struct attention_job *job, const struct task *task, int segment,
                           int64_t first_key, int64_t end_key, struct workspace *ws)
{
    const struct attention_segment *s = &task->item->segment[segment];
    int64_t at = cpu_segment_offset(s, task->kv_head);
    const uint16_t *k = s->k + at;
    const uint16_t *v = s->v + at;
    int dim = job->shape->head_dim;
    int blocks = (task->columns + LANES - 1) / LANES;
    for (int i = 0; i < blocks; i++)
        enter_segment(job, task, segment, i, &ws->blocks[i]);
    for (int64_t key = first_key; key < end_key; key += ATTENTION_KEYS) {
        struct key_tile tile = {.k = k + key * dim,
                                .v = v + key * dim,
                                .first_key = key,
                                .keys = end_key - key < ATTENTION_KEYS ? (int)(end_key - key)
                                                                       : ATTENTION_KEYS};
        if (task->ops->pack_values) {
            task->ops->pack_values(ws->v, v + key * dim, tile.keys, dim);
            tile.v = ws->v;
        }
        for (int i = 0; i < blocks; i++)
            attend_tile(job, task->ops, ws, &ws->blocks[i], &tile);
    }
}

/* Sums of values to rows of out. */
static void finish_block(const struct attention_job *job, const struct task *task, int first_column,
                         const float *acc, const float *most, const float *sum)
{
    int dim = job->shape->head_dim;
    int left = task->first_column + task->columns - first_column;
    for (int i = 0; i < left && i < LANES; i++) {
        size_t row = row_of_column(job, task, first_column + i);
        bool has_keys = most[i] > ATTENTION_LEAST;
        float scale = has_keys ? 1.0f / sum[i] : 0.0f;
        float values[ATTENTION_HEAD_DIM_MOST];
        for (int d = 0; d < dim; d++)
            values[d] = acc[d * task->ops->dim_stride + i * task->ops->column_stride] * scale;
        job->rows->to_bf16(job->out + row * (size_t)dim, values, dim);
        if (job->lse) /* most is in units of log2 */
            job->lse[row] = has_keys ? most[i] * 0.693147181f + logf(sum[i]) : -INFINITY;
    }
}

static float *partial_acc(const struct attention_job *job, int index)
{
    size_t floats = attention_head_bytes(job->shape->head_dim) / sizeof(float);
    return job->partial_acc + (size_t)index * floats;
}

static void run_task(void *context, int part, int thread)
{
    const struct attention_job *job = context;
    const struct task *task = &job->tasks[part];
    struct workspace *ws = open_workspace(job, thread);
    int blocks = (task->columns + LANES - 1) / LANES;
    for (int i = 0; i < blocks; i++)
        start_block(job, task, i, &ws->blocks[i]);

    int64_t before = 0; /* rows of the segments already walked */
    for (int s = 0; s < task->item->segments; s++) {
        int64_t rows = task_rows(job, task, s);
        int64_t first = task->first_key > before ? task->first_key - before : 0;
        int64_t end = task->end_key - before < rows ? task->end_key - before : rows;
        attend_segment(job, task, s, first, end, ws);
        before += rows;
    }

    for (int i = 0; i < blocks; i++) {
        const struct column_block *block = &ws->blocks[i];
        const struct attention_block *softmax = &block->softmax;
        if (task->partial < 0) {
            finish_block(job, task, task->first_column + i * LANES, block->acc, softmax->most,
                         softmax->sum);
            continue;
        }
        struct partial *partial = &job->partials[task->partial + i];
        memcpy(partial->most, softmax->most, sizeof(partial->most));
        memcpy(partial->sum, softmax->sum, sizeof(partial->sum));
        memcpy(partial_acc(job, task->partial + i), block->acc,
               acc_floats(task->ops, job->shape->head_dim, block->columns) * sizeof(float));
    }
}

static void add_partial(const struct attention_job *job, const struct task *task, int index,
                        int columns, const float *weight, float *acc)
{
    const float *from = partial_acc(job, index);
    size_t dim_stride = (size_t)task->ops->dim_stride;
    size_t column_stride = (size_t)task->ops->column_stride;
    for (size_t dim = 0; dim < (size_t)job->shape->head_dim; dim++)
        for (size_t column = 0; column < (size_t)columns; column++) {
            size_t at = dim * dim_stride + column * column_stride;
            acc[at] += weight[column] * from[at];
        }
}

static void merge_block(const struct attention_job *job, const struct merge *merge, int block,
                        float *acc)
{
    const struct task *task = merge->first;
    int first_column = task->first_column + block * LANES;
    int left = task->first_column + task->columns - first_column;
    int columns = left < LANES ? left : LANES;
    struct partial total;
    memset(acc, 0, acc_floats(task->ops, job->shape->head_dim, columns) * sizeof(float));
    for (int column = 0; column < columns; column++) {
        total.most[column] = ATTENTION_LEAST;
        total.sum[column] = 0;
    }
    for (int i = 0; i < merge->splits; i++) {
        const struct partial *partial = &job->partials[merge->first[i].partial + block];
        for (int column = 0; column < columns; column++)
            total.most[column] = fmaxf(total.most[column], partial->most[column]);
    }
    for (int i = 0; i < merge->splits; i++) {
        int index = merge->first[i].partial + block;
        const struct partial *partial = &job->partials[index];
        float weight[LANES];
        for (int column = 0; column < columns; column++) {
            weight[column] = exp2f(partial->most[column] - total.most[column]);
            total.sum[column] += weight[column] * partial->sum[column];
        }
        add_partial(job, task, index, columns, weight, acc);
    }
    finish_block(job, task, first_column, acc, total.most, total.sum);
}

static void run_merge(void *context, int part, int thread)
{
    const struct attention_job *job = context;
    const struct merge *merge = &job->merges[part];
    struct workspace *ws = open_workspace(job, thread);
    for (int block = 0; block * LANES < merge->first->columns; block++)
        merge_block(job, merge, block, ws->blocks[0].acc);
}

/* Most work first, so that the threads finish together. */
static int compare_tasks(const void *a, const void *b)
{
    const struct task *x = a;
    const struct task *y = b;
    int64_t x_work = (x->end_key - x->first_key) * x->columns;
    int64_t y_work = (y->end_key - y->first_key) * y->columns;
    return (x_work < y_work) - (x_work > y_work);
}

static int tiles_of(const struct attention_job *job, const struct attention_item *item)
{
    return (item->queries * job->group + TASK_BLOCKS * LANES - 1) / (TASK_BLOCKS * LANES);
}

static int splits_wanted(const struct attention_job *job, const struct attention_item *item)
{
    int tiles = tiles_of(job, item);
    return tiles == 0 ? 1 : (TASKS_WANTED + tiles - 1) / tiles;
}

/* Append the tasks of one item's columns for one KV head. */
static void plan_tile(struct attention_job *job, struct task task)
{
    int64_t keys = task_keys(job, &task);
    int64_t splits = (keys + SPLIT_KEYS - 1) / SPLIT_KEYS;
    if (splits > splits_wanted(job, task.item))
        splits = splits_wanted(job, task.item);
    if (splits < 1)
        splits = 1;
    struct task *first = &job->tasks[job->task_count];
    for (int64_t i = 0; i < splits; i++) {
        /* Whole tiles, so that no tile is cut where the segment itself goes on. */
        task.first_key = keys * i / splits / ATTENTION_KEYS * ATTENTION_KEYS;
        task.end_key = keys * (i + 1) / splits / ATTENTION_KEYS * ATTENTION_KEYS;
        if (i + 1 == splits)
            task.end_key = keys;
        task.partial = -1;
        if (splits > 1) {
            task.partial = job->partial_count;
            job->partial_count += (task.columns + LANES - 1) / LANES;
        }
        job->tasks[job->task_count++] = task;
    }
    if (splits > 1)
        job->merges[job->merge_count++] = (struct merge){first, (int)splits};
}

static enum tca_status plan(struct attention_job *job, const struct attention_item *items,
                            int item_count)
{
    int tiles = 0, tasks = 0;
    for (int i = 0; i < item_count; i++) {
        int item_tiles = tiles_of(job, &items[i]) * job->shape->kv_heads;
        tiles += item_tiles;
        tasks += item_tiles * splits_wanted(job, &items[i]);
    }
    if (tiles == 0)
        return TCA_OK;
    job->tasks = calloc((size_t)tasks, sizeof(*job->tasks));
    job->merges = calloc((size_t)tiles, sizeof(*job->merges));
    if (!job->tasks || !job->merges) {
        log_error("no memory to plan %d tiles of attention", tiles);
        return TCA_ERR_NO_MEMORY;
    }
    for (int i = 0; i < item_count; i++) {
        int columns = items[i].queries * job->group;
        for (int first = 0; first < columns; first += TASK_BLOCKS * LANES)
            for (int head = 0; head < job->shape->kv_heads; head++) {
                int left = columns - first;
                struct task task = {.ops = attention_tile_ops(job->isa, columns),
                                    .item = &items[i],
                                    .kv_head = head,
                                    .first_column = first,
                                    .columns =
                                        left < TASK_BLOCKS * LANES ? left : TASK_BLOCKS * LANES};
                plan_tile(job, task);
            }
    }
    /* Merges point at runs of tasks, so only unsplit plans are reordered. */
    if (job->merge_count == 0)
        qsort(job->tasks, (size_t)job->task_count, sizeof(*job->tasks), compare_tasks);
    return TCA_OK;
}

static enum tca_status take_scratch(struct attention_job *job, struct cpu_queue *queue)
{
    job->thread_bytes = (workspace_bytes(job->shape) + 63) / 64 * 64;
    size_t threads_bytes = (size_t)cpu_queue_threads(queue) * job->thread_bytes;
    size_t partials = (size_t)job->partial_count;
    job->scratch = cpu_queue_scratch(
        queue, threads_bytes + partials * (sizeof(struct partial) +
                                           attention_head_bytes(job->shape->head_dim)));
    if (!job->scratch)
        return TCA_ERR_NO_MEMORY;
    job->partials = (struct partial *)(job->scratch + threads_bytes);
    job->partial_acc = (float *)(job->partials + partials);
    return TCA_OK;
}

enum tca_status cpu_attention(struct kernel_queue *base, uint16_t *out, float *lse,
                              const uint16_t *q, const struct attention_shape *shape,
                              const struct attention_item *items, int item_count)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct attention_job job = {.isa = queue->isa,
                                .rows = cpu_rows(queue->isa),
                                .shape = shape,
                                .group = shape->q_heads / shape->kv_heads,
                                .q = q,
                                .out = out,
                                .lse = lse};
    enum tca_status status = plan(&job, items, item_count);
    if (status == TCA_OK)
        status = take_scratch(&job, queue);
    if (status == TCA_OK) {
        thread_pool_run(queue->pool, job.task_count, run_task, &job);
        thread_pool_run(queue->pool, job.merge_count, run_merge, &job);
    }
    free(job.merges);
    free(job.tasks);
    return status;
}
