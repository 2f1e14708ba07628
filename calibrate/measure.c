#include "calibrate/measure.h"

#include <inttypes.h>
#include <stdlib.h>

enum { WORKSPACE_ALIGNMENT = 64, GATHER_TAIL = 128 /* kernels/backend.h: gather */ };

struct measure {
    struct device device;
    struct attention_shape shape;
    struct measure_limits limits;
    void *workspace; /* device, owned: the memory of every buffer below */
    size_t workspace_bytes;
    uint16_t *out;       /* [step rows, q_heads, head_dim]: attention's, not read */
    float *step_lse;     /* [step rows, q_heads] of observers: all keys; of judged rows: own keys */
    float *lse;          /* [judged, q_heads] of all causal keys */
    float *kept_lse;     /* [judged, q_heads] of kept and own keys */
    float *block_scores; /* [observers or judged, q_heads, blocks] */
    float *block_masses; /* [kv_heads, blocks] */
    float *token_scores; /* [kv_heads, earlier] */
    int32_t *kept;       /* [kv_heads, earlier] */
    int32_t *counts;     /* [kv_heads] */
    uint16_t *k, *v;     /* [kv_heads, gathered rows, head_dim] */
    float *kept_masses;  /* [kv_heads, 2] */
    int32_t *host_counts; /* host, owned [kv_heads] */
    int64_t *budgets;     /* host, owned [kv_heads] */
    float *tca_shares;    /* host, owned [kv_heads, SELECT_TCA_SIZES] */
    float *masses;        /* host, owned [kv_heads, 2] */
    double *means;        /* host, owned [kv_heads]: of the last selection */
};

/* What one call works on. */
struct job {
    struct measure *measure;
    const struct sample *sample;
    const struct measure_keys *keys;
    int32_t observers[SAMPLE_QUESTION_ROWS_MAX]; /* rows of q */
};

static const enum select_rule source_rule[CURVE_SOURCES] = {
    [CURVE_BLOCK_TEXT] = SELECT_BLOCK,
    [CURVE_POOLED_TEXT] = SELECT_POOLED,
    [CURVE_POOLED_QUESTION] = SELECT_POOLED,
    [CURVE_TCA_TEXT] = SELECT_TCA,
};

bool measure_has_source(const struct sample *sample, enum curve_source source)
{
    return (source == CURVE_POOLED_QUESTION) == (sample->is_question != 0);
}

double measure_passes(const struct sample *sample)
{
    double shares = 0.0, keep, passes = 0.0;

    for (int i = 0; i < CURVE_SHARES - 1; i++)
        shares += (double)curve_share[i];
    for (int source = 0; source < CURVE_SOURCES; source++) {
        if (!measure_has_source(sample, (enum curve_source)source))
            continue;
        if (source != CURVE_TCA_TEXT) {
            passes += shares;
            continue;
        }
        for (int i = 0; i < CURVE_TCA_CANDIDATES; i++) {
            curve_tca_candidate(i, &keep);
            passes += keep;
        }
    }
    return passes;
}

/* Hands out parts of the workspace in turn; without a base it only counts. */
static void *take(char *base, size_t *used, size_t count, size_t size)
{
    void *part = base == NULL ? NULL : base + *used;

    *used += (count * size + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    return part;
}

static int64_t gathered_rows(const struct measure *measure)
{
    return (measure->limits.earlier + GATHER_TAIL - 1) / GATHER_TAIL * GATHER_TAIL;
}

/* The one list of the workspace's buffers; returns its bytes. */
static size_t lay_out(struct measure *measure, char *base)
{
    const size_t q_heads = (size_t)measure->shape.q_heads;
    const size_t kv_heads = (size_t)measure->shape.kv_heads;
    const size_t dim = (size_t)measure->shape.head_dim;
    const size_t earlier = (size_t)measure->limits.earlier;
    const size_t blocks = (size_t)select_blocks(measure->limits.earlier);
    const size_t gathered = kv_heads * (size_t)gathered_rows(measure) * dim;
    size_t used = 0;

    measure->out = take(base, &used, SAMPLE_TEXT_ROWS * q_heads * dim, sizeof(uint16_t));
    measure->step_lse = take(base, &used, SAMPLE_TEXT_ROWS * q_heads, sizeof(float));
    measure->lse = take(base, &used, SAMPLE_JUDGED * q_heads, sizeof(float));
    measure->kept_lse = take(base, &used, SAMPLE_JUDGED * q_heads, sizeof(float));
    measure->block_scores = take(base, &used, SAMPLE_JUDGED * q_heads * blocks, sizeof(float));
    measure->block_masses = take(base, &used, kv_heads * blocks, sizeof(float));
    measure->token_scores = take(base, &used, kv_heads * earlier, sizeof(float));
    measure->kept = take(base, &used, kv_heads * earlier, sizeof(int32_t));
    measure->counts = take(base, &used, kv_heads, sizeof(int32_t));
    measure->k = take(base, &used, gathered, sizeof(uint16_t));
    measure->v = take(base, &used, gathered, sizeof(uint16_t));
    measure->kept_masses = take(base, &used, kv_heads * 2, sizeof(float));
    return used;
}

static enum tca_status allocate(struct measure *measure)
{
    const struct device *device = &measure->device;
    const size_t heads = (size_t)measure->shape.kv_heads;

    measure->host_counts = calloc(heads, sizeof(*measure->host_counts));
    measure->budgets = calloc(heads, sizeof(*measure->budgets));
    measure->tca_shares = calloc(heads * SELECT_TCA_SIZES, sizeof(*measure->tca_shares));
    measure->masses = calloc(heads * 2, sizeof(*measure->masses));
    measure->means = calloc(heads, sizeof(*measure->means));
    if (measure->host_counts == NULL || measure->budgets == NULL || measure->tca_shares == NULL ||
        measure->masses == NULL || measure->means == NULL)
        return TCA_ERR_NO_MEMORY;
    measure->workspace_bytes = lay_out(measure, NULL);
    TCA_TRY(device->backend->alloc(device->index, measure->workspace_bytes, &measure->workspace));
    lay_out(measure, measure->workspace);
    return TCA_OK;
}

enum tca_status measure_create(const struct device *device, const struct attention_shape *shape,
                               const struct measure_limits *limits, struct measure **measure_out,
                               struct tca_error *error)
{
    struct measure *measure = calloc(1, sizeof(*measure));
    enum tca_status status;

    if (measure == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory to measure with");
    measure->device = *device;
    measure->shape = *shape;
    measure->limits = *limits;
    status = allocate(measure);
    if (status != TCA_OK) {
        tca_fail(error, status,
                 "no memory for a workspace of %zu bytes (documents of %" PRId64 " tokens)",
                 measure->workspace_bytes, limits->earlier);
        measure_destroy(measure);
        return status;
    }
    *measure_out = measure;
    return TCA_OK;
}

void measure_destroy(struct measure *measure)
{
    if (measure == NULL)
        return;
    measure->device.backend->free(measure->device.index, measure->workspace,
                                  measure->workspace_bytes);
    free(measure->host_counts);
    free(measure->budgets);
    free(measure->tca_shares);
    free(measure->masses);
    free(measure->means);
    free(measure);
}

/* step_lse: of observers over all their causal keys, of the rows behind them over the own ones. */
static enum tca_status attend_step(const struct job *job)
{
    struct measure *measure = job->measure;
    const int observers = job->sample->observers;
    struct attention_item items[2] = {
        {.queries = observers, .segments = 2, .segment = {job->keys->earlier, job->keys->own}},
        {.first_query = observers,
         .queries = job->sample->rows - observers,
         .segments = 1,
         .segment = {job->keys->own}}};

    items[0].segment[1].rows = observers;
    return measure->device.backend->attention(measure->device.queue, measure->out,
                                              measure->step_lse, job->keys->q, &measure->shape,
                                              items, 2);
}

/* lse_out: of the judged queries over `earlier` and their own keys. Scores know no values: half the
 * work of an attention. */
static enum tca_status attend_judged(const struct job *job, const struct attention_segment *earlier,
                                     float *lse_out)
{
    struct measure *measure = job->measure;
    const struct kernel_backend *backend = measure->device.backend;
    const struct sample *sample = job->sample;

    TCA_TRY(backend->block_scores(measure->device.queue, measure->block_scores, job->keys->q,
                                  &measure->shape, sample->judged_row, sample->judged, earlier));
    return backend->observer_lse(measure->device.queue, lse_out, measure->block_scores,
                                 measure->step_lse, sample->judged_row, sample->judged,
                                 measure->shape.q_heads, select_blocks(earlier->rows));
}

static enum tca_status score_blocks(const struct job *job)
{
    struct measure *measure = job->measure;
    const struct kernel_backend *backend = measure->device.backend;
    const int count = job->sample->observers;

    TCA_TRY(backend->block_scores(measure->device.queue, measure->block_scores, job->keys->q,
                                  &measure->shape, job->observers, count, &job->keys->earlier));
    return backend->block_masses(measure->device.queue, measure->block_masses,
                                 measure->block_scores, measure->step_lse, count, &measure->shape,
                                 select_blocks(job->sample->earlier));
}

/* Scores of the observers from `first` on. */
static enum tca_status score_tokens(const struct job *job, int first)
{
    struct measure *measure = job->measure;

    return measure->device.backend->token_scores(
        measure->device.queue, measure->token_scores, job->keys->q,
        measure->step_lse + (size_t)first * (size_t)measure->shape.q_heads, &measure->shape,
        job->observers + first, job->sample->observers - first, &job->keys->earlier);
}

/* Copy what was selected together; *kept_out describes the copy. */
static enum tca_status gather_kept(const struct job *job, struct attention_segment *kept_out)
{
    struct measure *measure = job->measure;
    const struct kernel_backend *backend = measure->device.backend;
    const struct kv_copy copy = {.k = measure->k,
                                 .v = measure->v,
                                 .head_stride = gathered_rows(measure) * measure->shape.head_dim,
                                 .rows = gathered_rows(measure)};

    TCA_TRY(backend->gather(measure->device.queue, &copy, &job->keys->earlier, measure->kept,
                            job->sample->earlier, measure->counts, &measure->shape));
    TCA_TRY(backend->download(measure->device.queue, measure->host_counts, measure->counts,
                              (size_t)measure->shape.kv_heads * sizeof(int32_t)));
    *kept_out = (struct attention_segment){.k = copy.k,
                                           .v = copy.v,
                                           .head_stride = copy.head_stride,
                                           .rows_per_head = measure->counts};
    for (int head = 0; head < measure->shape.kv_heads; head++)
        if (measure->host_counts[head] > kept_out->rows)
            kept_out->rows = measure->host_counts[head];
    return TCA_OK;
}

/* means: how much the judged queries keep of their mass with one selection. */
static enum tca_status judge(const struct job *job, enum select_rule rule,
                             const struct select_input *input, int64_t budget)
{
    struct measure *measure = job->measure;
    const struct kernel_backend *backend = measure->device.backend;
    const int kv_heads = measure->shape.kv_heads;
    const double judgements = (double)job->sample->judged * measure->shape.q_heads / kv_heads;
    struct attention_segment kept;

    for (int head = 0; head < kv_heads; head++) {
        measure->budgets[head] = budget;
        measure->means[head] = 1.0;
    }
    if (budget >= job->sample->earlier)
        return TCA_OK;
    TCA_TRY(backend->select(measure->device.queue, measure->kept, job->sample->earlier,
                            measure->counts, rule, input, measure->budgets, kv_heads));
    TCA_TRY(gather_kept(job, &kept));
    TCA_TRY(attend_judged(job, &kept, measure->kept_lse));
    TCA_TRY(backend->kept_masses(measure->device.queue, measure->kept_masses, measure->kept_lse,
                                 measure->lse, job->sample->judged, &measure->shape));
    TCA_TRY(backend->download(measure->device.queue, measure->masses, measure->kept_masses,
                              (size_t)kv_heads * 2 * sizeof(float)));
    for (int head = 0; head < kv_heads; head++)
        measure->means[head] = (double)measure->masses[2 * head] / judgements;
    return TCA_OK;
}

static void add_means(const struct measure *measure, int points, int point, double *sums)
{
    for (int head = 0; head < measure->shape.kv_heads; head++)
        sums[head * points + point] += measure->means[head];
}

static enum tca_status add_budgets(const struct job *job, enum curve_source source,
                                   const struct select_input *input, double *sums)
{
    int64_t before = 0;

    for (int share = 0; share < CURVE_SHARES; share++) {
        const int64_t budget = curve_budget(share, input->tokens, input->window);

        if (budget != before) /* shares below the least budget all keep the same */
            TCA_TRY(judge(job, source_rule[source], input, budget));
        add_means(job->measure, CURVE_SHARES, share, sums);
        before = budget;
    }
    return TCA_OK;
}

static enum tca_status add_candidates(const struct job *job, struct select_input *input,
                                      double *sums)
{
    struct measure *measure = job->measure;
    const int64_t always = SELECT_BLOCK_TOKENS + input->window;
    /* Any that the shares do not reach; but all tokens would be `dense`. */
    const int64_t budget = input->tokens > always ? input->tokens - 1 : input->tokens;

    input->tca_shares = measure->tca_shares;
    for (int i = 0; i < CURVE_TCA_CANDIDATES; i++) {
        const struct profile_tca candidate = curve_tca_candidate(i, NULL);

        for (int head = 0; head < measure->shape.kv_heads; head++)
            select_tca_shares((double)candidate.mu, (double)candidate.sigma,
                              measure->tca_shares + (ptrdiff_t)head * SELECT_TCA_SIZES);
        TCA_TRY(judge(job, SELECT_TCA, input, budget));
        add_means(measure, CURVE_TCA_CANDIDATES, i, sums);
    }
    return TCA_OK;
}

enum tca_status measure_sample(struct measure *measure, const struct sample *sample,
                               const struct measure_keys *keys, double *const sums[CURVE_SOURCES])
{
    struct job job = {.measure = measure, .sample = sample, .keys = keys};
    struct select_input input = {.tokens = sample->earlier,
                                 .window = measure->limits.window,
                                 .token_scores = measure->token_scores,
                                 .block_masses = measure->block_masses,
                                 .redundancy = SELECT_REDUNDANCY_SIMPSON};

    for (int i = 0; i < sample->observers; i++)
        job.observers[i] = i;
    TCA_TRY(attend_step(&job));
    TCA_TRY(attend_judged(&job, &keys->earlier, measure->lse));
    TCA_TRY(score_tokens(&job, 0));
    if (sample->is_question)
        return add_budgets(&job, CURVE_POOLED_QUESTION, &input, sums[CURVE_POOLED_QUESTION]);
    TCA_TRY(add_budgets(&job, CURVE_POOLED_TEXT, &input, sums[CURVE_POOLED_TEXT]));
    TCA_TRY(score_blocks(&job));
    TCA_TRY(add_budgets(&job, CURVE_BLOCK_TEXT, &input, sums[CURVE_BLOCK_TEXT]));
    TCA_TRY(score_tokens(&job, sample->observers - 1));
    return add_candidates(&job, &input, sums[CURVE_TCA_TEXT]);
}
