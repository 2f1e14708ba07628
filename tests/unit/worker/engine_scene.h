/* Plays scenes on the engine of a group of ranks (threads) with a small made-up model, and keeps
 * what becomes of its documents and questions. For several test programs. */
#ifndef TESTS_UNIT_WORKER_ENGINE_SCENE_H
#define TESTS_UNIT_WORKER_ENGINE_SCENE_H

#include "tests/support/check.h"

#include "model/profile.h"
#include "tests/unit/worker/tiny_model.h"
#include "worker/group_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOBS_MAX = 8, ANSWER_MAX = 600, SCENE_POSITIONS = 4096, STEPS_MAX = 4000 };

static const struct sampler_params greedy = {
    .top_p = 1.0, .repetition_penalty = 1.0, .logprobs = 2};

/* What became of one document or question. */
struct outcome {
    int progress, ready, closed, failed, done;
    int64_t tokens_done;
    enum tca_status status;
    char message[TCA_ERROR_TEXT_BYTES];
    enum question_end end;
    struct engine_usage usage;
    int selections;                       /* heads that told what they keep */
    uint32_t bins[ENGINE_SELECTION_BINS]; /* the sum of them */
    int64_t evicted_tokens;
    int tokens;
    struct sampled_token token[ANSWER_MAX];
};

/* Where scenes that name no folder play. */
static const char *scene_folder;

struct scene;
typedef void (*scene_fn)(struct scene *scene);

struct scene {
    scene_fn play;
    const char *folder;
    int64_t positions; /* 0: TINY_POSITIONS */
    int ranks, chunk, max_sequences;
    bool is_world; /* the ranks are the processes of mpirun; it plays on rank 0's */
    enum device_wish device;
    int64_t window, refresh_every;
    int stripe_unit;
    const char *profile;
    struct sparsity prefill, sparsity; /* of documents and questions opened from now on */
    bool evicts, reports_selection;
    int64_t kv_memory_bytes;
    const struct kernel_backend *backend;
    void *extra;
    const struct group_run *run; /* while it plays */
    struct engine *engine;
    struct outcome document[JOBS_MAX]; /* by key */
    struct outcome question[JOBS_MAX];
    uint64_t steps;
};

static inline void watch(void *context, const struct engine_event *event)
{
    struct scene *scene = context;
    bool is_document = event->kind <= ENGINE_DOCUMENT_FAILED;
    struct outcome *outcome =
        is_document ? &scene->document[event->key] : &scene->question[event->key];

    assert_true(event->key < JOBS_MAX);
    switch (event->kind) {
    case ENGINE_DOCUMENT_PROGRESS:
    case ENGINE_QUESTION_PROGRESS:
        assert_true(event->tokens_done > outcome->tokens_done);
        outcome->tokens_done = event->tokens_done;
        outcome->progress++;
        break;
    case ENGINE_DOCUMENT_READY:
        outcome->ready++;
        break;
    case ENGINE_DOCUMENT_CLOSED:
        outcome->closed++;
        break;
    case ENGINE_QUESTION_TOKEN:
        assert_true(outcome->tokens < ANSWER_MAX);
        assert_int_equal(outcome->done, 0);
        outcome->token[outcome->tokens++] = *event->token;
        break;
    case ENGINE_QUESTION_SELECTION:
        outcome->selections++;
        for (int i = 0; i < ENGINE_SELECTION_BINS; i++)
            outcome->bins[i] += event->bins[i];
        break;
    case ENGINE_QUESTION_EVICTED:
        outcome->evicted_tokens = event->kv_tokens;
        break;
    case ENGINE_DOCUMENT_FAILED:
    case ENGINE_QUESTION_DONE:
        outcome->failed += is_document || event->end == QUESTION_FAILED;
        outcome->done++;
        outcome->end = event->end;
        outcome->usage = event->usage;
        outcome->status = event->status;
        snprintf(outcome->message, sizeof(outcome->message), "%s", event->message);
        break;
    }
}

static inline void step(struct scene *scene, bool *is_busy)
{
    assert_true(++scene->steps < STEPS_MAX);
    assert_int_equal(engine_step(scene->engine, is_busy), TCA_OK);
}

static inline void run_until_idle(struct scene *scene)
{
    bool is_busy = true;

    while (is_busy)
        step(scene, &is_busy);
}

static inline enum tca_status lead(void *context, const struct group_run *run)
{
    struct scene *scene = context;
    struct engine_options options = {.chunk_tokens = scene->chunk,
                                     .max_sequences = scene->max_sequences,
                                     .max_positions =
                                         scene->positions == 0 ? TINY_POSITIONS : scene->positions};
    enum tca_status status;

    scene->run = run;
    status = engine_create(&options, run->lockstep, run->shard, watch, scene, &scene->engine);
    if (status != TCA_OK)
        return status;
    scene->play(scene);
    engine_destroy(scene->engine);
    return TCA_OK;
}

static inline enum tca_status perform(struct scene *scene)
{
    struct group_run_options options = {
        .model_folder = scene->folder == NULL ? scene_folder : scene->folder,
        .local_ranks = scene->is_world     ? 0
                       : scene->ranks == 0 ? 1
                                           : scene->ranks,
        .threads = 1,
        .kv_memory_bytes = scene->kv_memory_bytes == 0 ? 16 << 20 : scene->kv_memory_bytes,
        .chunk_tokens = scene->chunk == 0 ? 64 : scene->chunk,
        .max_sequences = scene->max_sequences == 0 ? 4 : scene->max_sequences,
        .window_tokens = scene->window,
        .refresh_every = scene->refresh_every,
        .profile = scene->profile,
        .stripe_unit = scene->stripe_unit,
        .has_dummy_weights = true,
        .device = scene->device,
        .backend = scene->backend};

    scene->chunk = options.chunk_tokens;
    scene->max_sequences = options.max_sequences;
    return group_run(&options, lead, scene);
}

/* Ids that depend on `salt`, the same in every test. */
static inline void make_ids(int32_t *ids, int count, int salt)
{
    for (int i = 0; i < count; i++)
        ids[i] = (i * i * 31 + i * 7 + salt * 13) % TINY_VOCAB;
}

static inline void open_document(struct scene *scene, uint64_t key, int tokens)
{
    int32_t ids[SCENE_POSITIONS];

    make_ids(ids, tokens, (int)key);
    engine_open_document(scene->engine, key, tokens, &scene->prefill);
    engine_receive_document(scene->engine, key, ids, tokens);
}

static inline void open_question(struct scene *scene, uint64_t key, uint64_t document, int tokens,
                                 int64_t max_tokens, const struct sampler_params *sampling)
{
    struct question_params params = {.key = key,
                                     .document_key = document,
                                     .tokens = tokens,
                                     .max_tokens = max_tokens,
                                     .sampling = *sampling,
                                     .sparsity = scene->sparsity,
                                     .evicts = scene->evicts,
                                     .reports_selection = scene->reports_selection};
    int32_t ids[SCENE_POSITIONS];

    make_ids(ids, tokens, 100 + (int)key);
    engine_open_question(scene->engine, &params);
    engine_receive_question(scene->engine, key, ids, tokens);
}

/* A profile of the made-up model with 4 KV heads: the first head of each layer gains most, the last
 * is concentrated. */
static inline void make_profile(const char *path, int window, int chunk, int tokens)
{
    struct profile profile = {.fingerprint = "dummy",
                              .layers = 2,
                              .kv_heads = 4,
                              .window_tokens = window,
                              .chunk_tokens = chunk,
                              .calibration_tokens = 1000,
                              .points = 4,
                              .share = {0.1F, 0.3F, 0.5F, 1.0F},
                              .lengths = 1,
                              .length = {tokens}};
    const float curves[4][4] = {{0.2F, 0.6F, 0.8F, 1.0F},
                                {0.3F, 0.4F, 0.5F, 1.0F},
                                {0.3F, 0.4F, 0.5F, 1.0F},
                                {0.97F, 0.98F, 0.99F, 1.0F}};
    struct bytes json = {0};
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(profile_allocate(&profile, true), TCA_OK);
    for (int table = 0; table < PROFILE_TABLES; table++)
        for (int head = 0; head < 8; head++)
            memcpy(profile.mass[table] + 4 * (ptrdiff_t)head, curves[head % 4], sizeof(curves[0]));
    for (int head = 0; head < 8; head++)
        profile.tca[head] = (struct profile_tca){.mu = 4.0F, .sigma = 1.5F};
    assert_int_equal(profile_write(&profile, &json), TCA_OK);
    assert_int_equal(fwrite(json.data, 1, json.size, file), json.size);
    fclose(file);
    bytes_free(&json);
    profile_deinit(&profile);
}

static inline double margin(const struct sampled_token *token)
{
    return (double)token->best[0].logprob - (double)token->best[1].logprob;
}

/* Equal tokens up to the first place where `a` was undecided; close log-probabilities. */
static inline void assert_same_answer(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->failed, 0);
    assert_int_equal(b->failed, 0);
    assert_true(a->tokens > 0);
    for (int i = 0; i < a->tokens && i < b->tokens; i++) {
        if (a->token[i].chosen.id != b->token[i].chosen.id) {
            assert_true(margin(&a->token[i]) < 0.05);
            return;
        }
        assert_true(fabs((double)a->token[i].chosen.logprob - (double)b->token[i].chosen.logprob) <
                    0.05);
    }
    assert_int_equal(a->tokens, b->tokens);
}

#endif
