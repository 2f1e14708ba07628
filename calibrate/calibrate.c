#include "calibrate/calibrate.h"

#include "base/log.h"
#include "calibrate/documents.h"
#include "calibrate/measure.h"
#include "calibrate/pass.h"
#include "worker/group_run.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LONGEST_DEFAULT = 131072,
    SAMPLES_MAX = PROFILE_LENGTHS_MAX * (SAMPLE_POSITIONS_MAX + DOCUMENT_QUESTIONS_MAX)
};

/* What one rank has for the time of the run. */
struct rank {
    struct sample *samples; /* owned; in the order of their steps */
    int sample_count;
    int next; /* sample */
    int layers;
    int first_head; /* of this rank */
    struct measure *measure;
    struct curves curves;
};

struct calibration {
    const struct calibrate_options *options;
    int64_t length[PROFILE_LENGTHS_MAX];
    int lengths;
    struct documents documents; /* rank 0 */
    struct rank *ranks; /* owned [COMM_RANKS_MAX]; ranks that are threads share this struct */
};

/* Rank 0's word to the others. */
struct samples {
    int32_t status; /* enum tca_status */
    int32_t count;
    struct sample list[SAMPLES_MAX];
};

enum tca_status calibrate_lengths(int64_t longest, int max_positions, int64_t *lengths_out,
                                  int *count_out, struct tca_error *error)
{
    static const int64_t shorter[] = {8192, 32768};
    const int64_t most = (int64_t)max_positions - SAMPLE_QUESTION_ROWS_MAX;
    int count = 0;

    if (most < SAMPLE_DOCUMENT_LEAST)
        return tca_fail(error, TCA_ERR_RANGE,
                        "the model has %d positions; a calibration needs %d at least",
                        max_positions, SAMPLE_DOCUMENT_LEAST + SAMPLE_QUESTION_ROWS_MAX);
    if (longest == 0)
        longest = most < LONGEST_DEFAULT ? most : LONGEST_DEFAULT;
    if (longest < SAMPLE_DOCUMENT_LEAST || longest > most)
        return tca_fail(error, TCA_ERR_RANGE,
                        "--longest: value %" PRId64 ", allowed: %d to %" PRId64
                        " (the model's %d positions less %d for a question)",
                        longest, SAMPLE_DOCUMENT_LEAST, most, max_positions,
                        SAMPLE_QUESTION_ROWS_MAX);
    for (size_t i = 0; i < sizeof(shorter) / sizeof(*shorter) && shorter[i] < longest; i++)
        lengths_out[count++] = shorter[i];
    lengths_out[count++] = longest;
    *count_out = count;
    return TCA_OK;
}

static void list_samples(const struct calibration *calibration, struct samples *samples)
{
    struct sampler_random random;
    int64_t starts[SAMPLE_POSITIONS_MAX];

    sampler_random_seed(&random, calibration->options->seed ^ UINT64_C(0x7361));
    for (int length = 0; length < calibration->lengths; length++) {
        const struct calibration_document *document = &calibration->documents.list[length];
        const int64_t tokens = calibration->length[length];
        const int positions =
            sample_positions(tokens, calibration->options->positions, &random, starts);

        for (int i = 0; i < positions; i++)
            samples->list[samples->count++] = sample_of_text(length, starts[i], &random);
        for (int i = 0; i < document->questions; i++) {
            const struct calibration_question *question = &document->question[i];

            samples->list[samples->count++] =
                sample_of_question(length, tokens, question->question_tokens,
                                   (int)question->ids.count - question->question_tokens);
        }
    }
}

/* Before minutes of work: whether the profile can be written. */
static enum tca_status check_out(const char *out, struct tca_error *error)
{
    const char *slash = strrchr(out, '/');
    const int folder_bytes = slash == NULL ? 1 : (int)(slash - out) + 1;
    char folder[4096];

    snprintf(folder, sizeof(folder), "%.*s", folder_bytes, slash == NULL ? "." : out);
    if (access(folder, W_OK | X_OK) != 0)
        return tca_fail(error, TCA_ERR_IO, "--out: %s: %s", folder, strerror(errno));
    return TCA_OK;
}

/* Rank 0: what the pass will run over. */
static enum tca_status prepare(struct calibration *calibration, struct samples *samples)
{
    const struct calibrate_options *options = calibration->options;
    const struct documents_options documents = {.model_folder = options->model_folder,
                                                .files = options->files,
                                                .file_count = options->file_count,
                                                .lengths = calibration->length,
                                                .length_count = calibration->lengths,
                                                .questions = options->questions,
                                                .seed = options->seed};
    struct tca_error error = {.text = ""};
    enum tca_status status = check_out(options->out, &error);

    if (status == TCA_OK)
        status = documents_make(&documents, &calibration->documents, &error);
    if (status != TCA_OK)
        log_error("%s", error.text);
    else
        list_samples(calibration, samples);
    return status;
}

/* The step of the next sample? Nothing else begins there, or has a base. */
static bool is_sampled(const struct sample *sample, const struct forward_view *view)
{
    const struct forward_item *item = &view->items[0];
    const bool is_question = item->base != NULL;

    return item->rows == sample->rows && is_question == (sample->is_question != 0) &&
           (is_question ? item->base_rows : item->own_rows) == sample->earlier;
}

static struct attention_segment segment_of(const struct kv_layer *layer, int64_t first,
                                           int64_t rows, int head_dim)
{
    return (struct attention_segment){.k = layer->k + first * head_dim,
                                      .v = layer->v + first * head_dim,
                                      .head_stride = layer->head_stride,
                                      .rows = rows};
}

static enum tca_status probe(void *context, const struct forward_view *view)
{
    struct rank *rank = context;
    const struct forward_item *item = &view->items[0];
    const struct sample *sample = &rank->samples[rank->next];
    struct measure_keys keys = {.q = view->q};
    double *sums[CURVE_SOURCES];
    struct kv_layer own, earlier;

    if (rank->next == rank->sample_count || !is_sampled(sample, view))
        return TCA_OK;
    own = kv_range_layer(item->own, view->kv, view->layer);
    earlier = item->base == NULL ? own : kv_range_layer(item->base, view->kv, view->layer);
    keys.earlier = segment_of(&earlier, 0, sample->earlier, view->shape->head_dim);
    keys.own = segment_of(&own, item->own_rows, item->rows, view->shape->head_dim);
    keys.own.causal = true;
    for (int source = 0; source < CURVE_SOURCES; source++)
        sums[source] = curves_at(&rank->curves, (enum curve_source)source, sample->length,
                                 view->layer, rank->first_head);
    TCA_TRY(measure_sample(rank->measure, sample, &keys, sums));
    if (view->layer == rank->layers - 1)
        rank->next++;
    return TCA_OK;
}

static enum tca_status start_rank(struct calibration *calibration, const struct group_run *run,
                                  const struct samples *samples)
{
    struct rank *rank = &calibration->ranks[run->control->rank];
    const struct model_config *config = model_shard_config(run->shard);
    const struct shard *shard = &model_shard_facts(run->shard)->shard;
    const struct attention_shape shape = {.q_heads = shard->q_heads,
                                          .kv_heads = shard->kv_heads,
                                          .head_dim = config->head_dim,
                                          .scale = 1.0F / sqrtf((float)config->head_dim)};
    const struct measure_limits limits = {.earlier = calibration->length[calibration->lengths - 1],
                                          .window = calibration->options->window};
    const size_t list_bytes = (size_t)samples->count * sizeof(*samples->list);
    struct tca_error error = {.text = ""};
    enum tca_status status;

    *rank = (struct rank){.samples = malloc(list_bytes),
                          .sample_count = samples->count,
                          .layers = config->layers,
                          .first_head = shard->kv_head_first};
    if (rank->samples == NULL)
        return TCA_ERR_NO_MEMORY;
    if (run->ranks > config->kv_heads) {
        if (run->control->rank == 0)
            log_error("%d ranks: each must hold whole KV heads, of which there are %d", run->ranks,
                      config->kv_heads);
        return TCA_ERR_UNSUPPORTED;
    }
    memcpy(rank->samples, samples->list, list_bytes);
    TCA_TRY(curves_init(&rank->curves, calibration->lengths, config->layers, config->kv_heads));
    status =
        measure_create(model_shard_device(run->shard), &shape, &limits, &rank->measure, &error);
    if (status != TCA_OK)
        log_error("rank %d: %s", run->control->rank, error.text);
    else
        model_shard_set_probe(run->shard, probe, rank);
    return status;
}

static enum tca_status start(void *context, const struct group_run *run)
{
    struct calibration *calibration = context;
    struct comm_group *group = run->control;
    struct samples *samples = calloc(1, sizeof(*samples));
    enum tca_status status = samples == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;

    /* The others wait for rank 0: it tells a failure too. */
    status = lockstep_agree(group, status, GROUP_RUN_TIMEOUT_MS);
    if (status == TCA_OK && group->rank == 0)
        samples->status = prepare(calibration, samples);
    if (status == TCA_OK)
        status = group->ops->broadcast(group, samples, sizeof(*samples), 0, GROUP_RUN_TIMEOUT_MS);
    if (status == TCA_OK)
        status = (enum tca_status)samples->status;
    if (status == TCA_OK)
        status = start_rank(calibration, run, samples);
    free(samples);
    return status;
}

static void stop_rank(struct rank *rank)
{
    measure_destroy(rank->measure);
    curves_deinit(&rank->curves);
    free(rank->samples);
}

/* Rank 0. */
static enum tca_status lead(void *context, const struct group_run *run)
{
    struct calibration *calibration = context;
    const struct rank *rank = &calibration->ranks[0];
    const struct pass pass = {.documents = &calibration->documents,
                              .samples = rank->samples,
                              .sample_count = rank->sample_count,
                              .chunk_tokens = calibration->options->chunk_tokens};

    return pass_run(&pass, run);
}

/* Add the curves of all ranks up at rank 0: each has zeros where others have heads. */
static enum tca_status gather_curves(struct rank *rank, const struct group_run *run)
{
    struct comm_group *group = run->control;
    const size_t count = rank->curves.count, bytes = count * sizeof(double);
    double *all = NULL;
    enum tca_status status = TCA_OK;

    if (group->rank == 0) {
        all = malloc((size_t)group->ranks * bytes);
        status = all == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
    }
    status = lockstep_agree(group, status, GROUP_RUN_TIMEOUT_MS);
    if (status == TCA_OK)
        status = group->ops->gather(group, all, rank->curves.sums, bytes, 0, GROUP_RUN_TIMEOUT_MS);
    for (int other = 1; status == TCA_OK && group->rank == 0 && other < group->ranks; other++)
        for (size_t i = 0; i < count; i++)
            rank->curves.sums[i] += all[(size_t)other * count + i];
    free(all);
    return status;
}

static void count_samples(struct rank *rank)
{
    for (int i = 0; i < rank->sample_count; i++)
        for (int source = 0; source < CURVE_SOURCES; source++)
            rank->curves.samples[source][rank->samples[i].length] +=
                measure_has_source(&rank->samples[i], (enum curve_source)source);
}

/* The profile of rank 0's curves. */
static enum tca_status make_profile(const struct calibration *calibration,
                                    const struct group_run *run, struct profile *profile)
{
    const struct model_shard_facts *facts = model_shard_facts(run->shard);
    const struct curves *curves = &calibration->ranks[0].curves;

    *profile = (struct profile){.layers = curves->layers,
                                .kv_heads = curves->kv_heads,
                                .window_tokens = calibration->options->window,
                                .chunk_tokens = SAMPLE_TEXT_ROWS,
                                .points = CURVE_SHARES,
                                .lengths = calibration->lengths};
    memcpy(profile->fingerprint, facts->fingerprint, sizeof(facts->fingerprint));
    for (int i = 0; i < calibration->lengths; i++) {
        profile->length[i] = calibration->length[i];
        profile->calibration_tokens += calibration->length[i];
    }
    TCA_TRY(profile_allocate(profile, true));
    curves_fill(curves, calibration->options->threshold, profile);
    return TCA_OK;
}

/* Mean over layers and heads. */
static double mean_mass(const struct profile *profile, enum profile_table table, int64_t tokens,
                        int point)
{
    float curve[PROFILE_POINTS_MAX];
    double sum = 0.0;

    for (int layer = 0; layer < profile->layers; layer++)
        for (int head = 0; head < profile->kv_heads; head++) {
            profile_curve(profile, table, layer, head, tokens, curve);
            sum += (double)curve[point];
        }
    return sum / profile->layers / profile->kv_heads;
}

static void print_summary(const struct profile *profile, const char *path)
{
    static const int points[] = {5, 8, 11}; /* of curve_share */

    printf("%s: profile %s, mean kept mass\n%10s", path, profile->id, "tokens");
    for (int table = 0; table < PROFILE_TABLES; table++)
        for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++)
            printf("  %s %2.0f %%", table == PROFILE_PREFILL ? "prefill" : "question",
                   (double)profile->share[points[i]] * 100.0);
    printf("\n");
    for (int length = 0; length < profile->lengths; length++) {
        printf("%10" PRId64, profile->length[length]);
        for (int table = 0; table < PROFILE_TABLES; table++)
            for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++)
                printf("  %*.4f", table == PROFILE_PREFILL ? 12 : 13,
                       mean_mass(profile, (enum profile_table)table, profile->length[length],
                                 points[i]));
        printf("\n");
    }
}

/* Write the profile and read it back as the service will. */
static enum tca_status write_profile(const struct calibration *calibration,
                                     const struct group_run *run)
{
    const char *path = calibration->options->out;
    struct tca_error error = {.text = ""};
    struct profile profile, *read;
    enum tca_status status = make_profile(calibration, run, &profile);

    if (status != TCA_OK)
        return status;
    status = profile_save(&profile, path, &error);
    if (status == TCA_OK)
        status = profile_open(path, profile.fingerprint, profile.layers, profile.kv_heads, &read,
                              &error);
    if (status != TCA_OK) {
        log_error("%s", error.text);
    } else {
        print_summary(read, path);
        profile_close(read);
    }
    profile_deinit(&profile);
    return status;
}

static enum tca_status finish(void *context, const struct group_run *run)
{
    struct calibration *calibration = context;
    struct rank *rank = &calibration->ranks[run->control->rank];
    enum tca_status status = TCA_OK;

    if (rank->next != rank->sample_count) {
        log_error("rank %d: measured %d of %d samples", run->control->rank, rank->next,
                  rank->sample_count);
        status = TCA_ERR_ABORTED;
    }
    TCA_TRY(lockstep_agree(run->control, status, GROUP_RUN_TIMEOUT_MS));
    TCA_TRY(gather_curves(rank, run));
    if (run->control->rank != 0)
        return TCA_OK;
    count_samples(rank);
    return write_profile(calibration, run);
}

/* A quarter of a document that is kept anyway leaves something to choose from at every position. */
static enum tca_status check_window(const struct calibration *calibration, struct tca_error *error)
{
    const int64_t most = calibration->length[calibration->lengths - 1] / 4;

    if (calibration->options->window <= most)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_RANGE,
                    "--window: value %" PRId64 ", allowed: 0 to %" PRId64
                    " (a quarter of the longest document)",
                    calibration->options->window, most);
}

enum tca_status calibrate(const struct calibrate_options *options)
{
    const struct group_run_options group = {.model_folder = options->model_folder,
                                            .device = options->device,
                                            .local_ranks = options->local_ranks,
                                            .threads = options->threads,
                                            .kv_memory_bytes = options->kv_memory_bytes,
                                            .chunk_tokens = options->chunk_tokens,
                                            .max_sequences = 1,
                                            .profile = "none", /* an old one may be damaged */
                                            .start = start,
                                            .finish = finish};
    struct calibration calibration = {.options = options};
    struct tca_error error = {.text = ""};
    struct model_config config;
    enum tca_status status = model_config_read(options->model_folder, &config, &error);

    if (status == TCA_OK)
        status = calibrate_lengths(options->longest, config.max_positions, calibration.length,
                                   &calibration.lengths, &error);
    if (status == TCA_OK)
        status = check_window(&calibration, &error);
    if (status != TCA_OK) {
        log_error("%s", error.text);
        return status;
    }
    calibration.ranks = calloc(COMM_RANKS_MAX, sizeof(*calibration.ranks));
    if (calibration.ranks == NULL)
        return TCA_ERR_NO_MEMORY;
    status = group_run(&group, lead, &calibration);
    for (int i = 0; i < COMM_RANKS_MAX; i++)
        stop_rank(&calibration.ranks[i]);
    free(calibration.ranks);
    documents_free(&calibration.documents);
    return status;
}
