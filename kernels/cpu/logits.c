/* The best candidates of each row of logits. The threads share the rows. */
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <math.h>

struct top_job {
    const struct cpu_rows *kernels;
    float *values;
    int32_t *ids;
    float *lse;
    const float *logits;
    int cols;
    int count;
};

/* Is candidate a worse than b? Ties go to the lowest id. */
static bool is_worse(float a_value, int32_t a_id, float b_value, int32_t b_id)
{
    return a_value != b_value ? a_value < b_value : a_id > b_id;
}

/* The worst of `count` sits at the root and sinks to its place after a change. */
static void heap_sink(float *values, int32_t *ids, int root, int count)
{
    float value = values[root];
    int32_t id = ids[root];
    for (;;) {
        int child = 2 * root + 1;
        if (child >= count)
            break;
        if (child + 1 < count &&
            is_worse(values[child + 1], ids[child + 1], values[child], ids[child]))
            child++;
        if (!is_worse(values[child], ids[child], value, id))
            break;
        values[root] = values[child];
        ids[root] = ids[child];
        root = child;
    }
    values[root] = value;
    ids[root] = id;
}

static void top_of_row(float *values, int32_t *ids, const float *row, int cols, int count)
{
    for (int i = 0; i < count; i++) {
        values[i] = row[i];
        ids[i] = i;
    }
    for (int i = count / 2 - 1; i >= 0; i--)
        heap_sink(values, ids, i, count);
    for (int i = count; i < cols; i++) {
        if (!(row[i] > values[0])) /* later ids lose ties */
            continue;
        values[0] = row[i];
        ids[0] = i;
        heap_sink(values, ids, 0, count);
    }
    for (int last = count - 1; last > 0; last--) {
        float value = values[0];
        int32_t id = ids[0];
        values[0] = values[last];
        ids[0] = ids[last];
        heap_sink(values, ids, 0, last);
        values[last] = value;
        ids[last] = id;
    }
}

static void top_rows(void *context, int first, int rows)
{
    const struct top_job *job = context;
    for (int r = first; r < first + rows; r++) {
        const float *row = job->logits + (size_t)r * (size_t)job->cols;
        size_t at = (size_t)r * (size_t)job->count;
        int found = job->count < job->cols ? job->count : job->cols;
        top_of_row(job->values + at, job->ids + at, row, job->cols, found);
        for (int i = found; i < job->count; i++) {
            job->values[at + (size_t)i] = -INFINITY;
            job->ids[at + (size_t)i] = -1;
        }
        float most = job->values[at];
        job->lse[r] = most + logf(job->kernels->sum_exp(row, most, job->cols));
    }
}

enum tca_status cpu_logits_top(struct kernel_queue *base, float *values_out, int32_t *ids_out,
                               float *lse_out, const float *logits, int rows, int cols, int count)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct top_job job = {.kernels = cpu_rows(queue->isa),
                          .values = values_out,
                          .ids = ids_out,
                          .lse = lse_out,
                          .logits = logits,
                          .cols = cols,
                          .count = count};
    cpu_queue_run_rows(queue, rows, 1, top_rows, &job);
    return TCA_OK;
}
