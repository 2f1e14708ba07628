/* tca-bench: prefill and decode speed of a model on a group of ranks, through the engine and the
 * forward pass of tca-worker. One line, or one JSON object with --json, for each prompt length and
 * setting; the median of the repetitions, after runs that do not count. */
#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"
#include "worker/group_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS_MAX = 32, WORKLOADS_MAX = 32, BATCH_MAX = 1024, REPEAT_MAX = 101 };

struct options {
    char *model;
    int device;
    int64_t local_ranks;
    int64_t threads;
    char *prompt_tokens;
    int64_t question_tokens;
    int64_t decode_tokens;
    int64_t batch;
    char *prefill_rule;
    double prefill_keep;
    char *rule;
    double keep;
    int64_t dense_below;
    int64_t window;
    int64_t chunk;
    int64_t repeat;
    int64_t warm_up;
    int64_t warm_up_s;
    char *settings;
    int64_t kv_memory;
    int nccl_sums;
    bool dummy_weights;
    bool json;
};

static const char *const nccl_sums[] = {"other", "all", NULL}; /* enum comm_nccl_sums */

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, model), .name = "model", .metavar = "DIR",
     .help = "Hugging Face folder of the model"},
    {SETTING_FIELD(struct options, device), .name = "device", .initial = "auto",
     .choices = device_wish_names, .metavar = "NAME",
     .help = "cpu, cuda, or auto: cuda where there is one"},
    {SETTING_FIELD(struct options, local_ranks), .name = "local-ranks", .metavar = "N",
     .help = "ranks as threads of this process; 0: every process of mpirun is one rank",
     .max = 256},
    {SETTING_FIELD(struct options, threads), .name = "threads", .metavar = "N",
     .help = "CPU threads of a rank; 0: the cores divided by the ranks", .max = 1024},
    {SETTING_FIELD(struct options, prompt_tokens), .name = "prompt-tokens", .initial = "2048",
     .metavar = "N[,N..]", .help = "document lengths to prefill"},
    {SETTING_FIELD(struct options, decode_tokens), .name = "decode-tokens", .initial = "64",
     .metavar = "N", .help = "tokens to decode after it", .min = 1, .max = 1 << 20},
    {SETTING_FIELD(struct options, question_tokens), .name = "question-tokens", .initial = "1",
     .metavar = "N", .help = "tokens of each question, before its answer", .min = 1, .max = 4096},
    {SETTING_FIELD(struct options, prefill_rule), .name = "prefill-rule", .initial = "dense",
     .metavar = "RULE", .help = "which earlier tokens a chunk attends to"},
    {SETTING_FIELD(struct options, prefill_keep), .name = "prefill-keep", .initial = "0.1",
     .metavar = "SHARE", .help = "share of them", .real_min = 0.0001, .real_max = 1.0},
    {SETTING_FIELD(struct options, dense_below), .name = "dense-below", .initial = "8192",
     .metavar = "N", .help = "chunks that begin before this position are dense", .max = INT32_MAX},
    {SETTING_FIELD(struct options, rule), .name = "rule", .initial = "dense", .metavar = "RULE",
     .help = "which tokens of the document a question keeps"},
    {SETTING_FIELD(struct options, keep), .name = "keep", .initial = "0.03", .metavar = "SHARE",
     .help = "share of them", .real_min = 0.0001, .real_max = 1.0},
    {SETTING_FIELD(struct options, window), .name = "window", .initial = "1024", .metavar = "N",
     .help = "last tokens that every rule keeps", .min = 64, .max = 65536},
    {SETTING_FIELD(struct options, batch), .name = "batch", .initial = "1", .metavar = "N",
     .help = "questions that decode together", .min = 1, .max = BATCH_MAX},
    {SETTING_FIELD(struct options, settings), .name = "settings",
     .metavar = "RULE:KEEP/RULE:KEEP/BATCH[,..]",
     .help = "several of --prefill-rule, --rule and --batch, one after the other on one model"},
    {SETTING_FIELD(struct options, chunk), .name = "chunk", .metavar = "N",
     .help = "prefill tokens of one step; 0: 1024 on CPUs, 4096 on GPUs", .max = 1 << 20},
    {SETTING_FIELD(struct options, repeat), .name = "repeat", .initial = "3", .metavar = "N",
     .help = "runs that count", .min = 1, .max = REPEAT_MAX},
    {SETTING_FIELD(struct options, warm_up), .name = "warm-up", .initial = "1", .metavar = "N",
     .help = "runs before that do not", .max = REPEAT_MAX},
    {SETTING_FIELD(struct options, warm_up_s), .name = "warm-up-s", .metavar = "SECONDS",
     .help = "repeat the first measurement so long before anything counts", .max = 3600},
    {SETTING_FIELD(struct options, kv_memory), .name = "kv-memory", .metavar = "BYTES",
     .help = "KV memory of a rank; 0: half of what is free", .is_bytes = true},
    {SETTING_FIELD(struct options, nccl_sums), .name = "nccl-sums", .initial = "other",
     .choices = nccl_sums, .metavar = "WHICH",
     .help = "sums over GPUs that NCCL does: those that peers' memory does not, or all"},
    {SETTING_FIELD(struct options, dummy_weights), .name = "dummy-weights",
     .help = "read config.json only and make the weights up"},
    {SETTING_FIELD(struct options, json), .name = "json", .help = "print JSON objects, one a line"},
};

static const struct settings_table table = {
    .program = "tca-bench", .rows = rows, .count = sizeof(rows) / sizeof(*rows)};

/* What is measured at every prompt length. */
struct workload {
    char prefill_rule[32], rule[32];
    struct sparsity prefill, question;
    int batch;
};

struct bench {
    const struct options *options;
    const struct group_run *run;
    struct engine *engine;
    int workloads;
    struct workload workload[WORKLOADS_MAX];
    const struct workload *now;
    struct engine_usage usage; /* of the question that ended last */
    int is_ready;              /* the document is */
    int first_tokens;          /* questions that have given their first */
    int ended;                 /* questions */
    enum tca_status failed;
};

struct measurement {
    double prefill_s;
    double question_s; /* the questions' own passes */
    double decode_s;   /* of decode_tokens for every question of the batch */
};

struct runs {
    double prefill_s[REPEAT_MAX], question_s[REPEAT_MAX], decode_s[REPEAT_MAX];
};

static void watch(void *context, const struct engine_event *event)
{
    struct bench *bench = context;

    switch (event->kind) {
    case ENGINE_DOCUMENT_READY:
        bench->is_ready = 1;
        return;
    case ENGINE_QUESTION_DONE:
        bench->ended++;
        bench->usage = event->usage;
        if (event->end == QUESTION_FAILED)
            bench->failed = event->status;
        break;
    case ENGINE_DOCUMENT_FAILED:
        bench->failed = event->status;
        break;
    case ENGINE_QUESTION_PROGRESS:
        bench->first_tokens += event->tokens_done == bench->options->question_tokens;
        return;
    case ENGINE_DOCUMENT_PROGRESS:
    case ENGINE_DOCUMENT_CLOSED:
    case ENGINE_QUESTION_SELECTION:
    case ENGINE_QUESTION_EVICTED:
    case ENGINE_QUESTION_TOKEN:
        return;
    }
    if (bench->failed != TCA_OK)
        log_error("%s", event->message);
}

static enum tca_status step_until(struct bench *bench, const int *counter, int value)
{
    bool is_busy = true;

    while (*counter < value && bench->failed == TCA_OK) {
        TCA_TRY(engine_step(bench->engine, &is_busy));
        if (!is_busy && *counter < value)
            return TCA_ERR_ABORTED;
    }
    return bench->failed;
}

/* Ids that walk through the vocabulary without a pattern a model could profit from. */
static enum tca_status send_document(struct bench *bench, uint64_t key, int64_t tokens)
{
    int vocab = model_shard_config(bench->run->shard)->vocab;
    int32_t *ids = malloc((size_t)tokens * sizeof(*ids));
    uint64_t state = 1;

    if (ids == NULL)
        return TCA_ERR_NO_MEMORY;
    for (int64_t i = 0; i < tokens; i++) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        ids[i] = (int32_t)((state >> 33) % (uint64_t)vocab);
    }
    engine_open_document(bench->engine, key, tokens, &bench->now->prefill);
    engine_receive_document(bench->engine, key, ids, tokens);
    free(ids);
    return TCA_OK;
}

static enum tca_status send_question(struct bench *bench, uint64_t document, int index)
{
    const struct options *options = bench->options;
    const int vocab = model_shard_config(bench->run->shard)->vocab;
    struct question_params params = {.key = (uint64_t)index + 1,
                                     .document_key = document,
                                     .tokens = options->question_tokens,
                                     .max_tokens = options->decode_tokens + 1,
                                     .sampling = {.top_p = 1.0, .repetition_penalty = 1.0},
                                     .sparsity = bench->now->question};
    int32_t *ids = malloc((size_t)params.tokens * sizeof(*ids));

    if (ids == NULL)
        return TCA_ERR_NO_MEMORY;
    for (int64_t i = 0; i < params.tokens; i++)
        ids[i] = (int32_t)((index + i * 17) % vocab);
    engine_open_question(bench->engine, &params);
    engine_receive_question(bench->engine, params.key, ids, params.tokens);
    free(ids);
    return TCA_OK;
}

static enum tca_status measure_decode(struct bench *bench, uint64_t document,
                                      struct measurement *out)
{
    int batch = bench->now->batch;
    int64_t start_ns = clock_monotonic_ns();

    for (int i = 0; i < batch; i++)
        TCA_TRY(send_question(bench, document, i));
    TCA_TRY(step_until(bench, &bench->first_tokens, batch));
    out->question_s = (double)(clock_monotonic_ns() - start_ns) * 1e-9;
    start_ns = clock_monotonic_ns();
    TCA_TRY(step_until(bench, &bench->ended, batch));
    out->decode_s = (double)(clock_monotonic_ns() - start_ns) * 1e-9;
    return TCA_OK;
}

static enum tca_status measure(struct bench *bench, int64_t tokens, struct measurement *out)
{
    const struct model_config *config = model_shard_config(bench->run->shard);
    struct engine_options options = {.chunk_tokens = bench->run->chunk_tokens,
                                     .max_sequences = bench->now->batch,
                                     .max_positions = config->max_positions};
    const uint64_t key = 1;
    bool is_busy = true;
    int64_t start_ns;
    enum tca_status status;

    bench->is_ready = bench->first_tokens = bench->ended = 0;
    TCA_TRY(engine_create(&options, bench->run->lockstep, bench->run->shard, watch, bench,
                          &bench->engine));
    status = send_document(bench, key, tokens);
    start_ns = clock_monotonic_ns();
    if (status == TCA_OK)
        status = step_until(bench, &bench->is_ready, 1);
    out->prefill_s = (double)(clock_monotonic_ns() - start_ns) * 1e-9;
    if (status == TCA_OK)
        status = measure_decode(bench, key, out);
    /* The slots must be free again before another engine counts from the start. */
    engine_close_document(bench->engine, key);
    while (status == TCA_OK && is_busy)
        status = engine_step(bench->engine, &is_busy);
    engine_destroy(bench->engine);
    return status;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare_doubles);
    return count % 2 != 0 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* ,"name":[values] */
static void print_runs(const char *name, const double *values, int count)
{
    printf(",\"%s\":[", name);
    for (int i = 0; i < count; i++)
        printf("%s%.6f", i == 0 ? "" : ",", values[i]);
    printf("]");
}

/* All but the runs and the closing brace. */
static void print_json(const struct bench *bench, int64_t tokens, const struct measurement *result)
{
    const struct options *options = bench->options;
    const struct workload *now = bench->now;

    printf("{\"model\":\"%s\",\"device\":\"%s\",\"ranks\":%d,\"threads\":%d,"
           "\"chunk_tokens\":%d,\"prompt_tokens\":%lld,\"prefill_rule\":\"%s\","
           "\"prefill_keep\":%g,\"question_tokens\":%lld,\"rule\":\"%s\",\"keep\":%g,"
           "\"batch\":%d,\"decode_tokens\":%lld,\"repeat\":%lld,"
           "\"prefill_s\":%.6f,\"prefill_tokens_per_s\":%.2f,\"question_s\":%.6f,"
           "\"decode_s\":%.6f,\"decode_tokens_per_s\":%.2f,\"kept_share\":%.6f,"
           "\"core_cache_bytes\":%lld,\"full_kv_bytes\":%lld",
           options->model, bench->run->backend->name, bench->run->ranks, bench->run->threads,
           bench->run->chunk_tokens, (long long)tokens, now->prefill_rule, now->prefill.keep,
           (long long)options->question_tokens, now->rule, now->question.keep, now->batch,
           (long long)options->decode_tokens, (long long)options->repeat, result->prefill_s,
           (double)tokens / result->prefill_s, result->question_s, result->decode_s,
           (double)(now->batch * options->decode_tokens) / result->decode_s,
           bench->usage.kept_share, (long long)bench->usage.core_cache_bytes,
           (long long)bench->usage.full_kv_bytes);
}

static void print_line(const struct bench *bench, int64_t tokens, const struct measurement *result)
{
    const struct options *options = bench->options;
    const struct workload *now = bench->now;

    printf("%d rank%s x %d thread%s  prefill %lld tokens (%s %g): %.1f tokens/s (%.3f s)  question "
           "(%s %g) %.1f ms  decode %d x %lld tokens: %.1f tokens/s (%.3f ms a step)  kept %.4f\n",
           bench->run->ranks, bench->run->ranks == 1 ? "" : "s", bench->run->threads,
           bench->run->threads == 1 ? "" : "s", (long long)tokens, now->prefill_rule,
           now->prefill.keep, (double)tokens / result->prefill_s, result->prefill_s, now->rule,
           now->question.keep, result->question_s * 1e3, now->batch,
           (long long)options->decode_tokens,
           (double)(now->batch * options->decode_tokens) / result->decode_s,
           result->decode_s * 1e3 / (double)options->decode_tokens, bench->usage.kept_share);
}

/* Prints the medians; sorts the runs. */
static void report(const struct bench *bench, int64_t tokens, struct runs *runs)
{
    int repeat = (int)bench->options->repeat;
    struct measurement result = {.prefill_s = median(runs->prefill_s, repeat),
                                 .question_s = median(runs->question_s, repeat),
                                 .decode_s = median(runs->decode_s, repeat)};

    if (bench->options->json) {
        print_json(bench, tokens, &result);
        print_runs("prefill_runs_s", runs->prefill_s, repeat);
        print_runs("question_runs_s", runs->question_s, repeat);
        print_runs("decode_runs_s", runs->decode_s, repeat);
        printf("}\n");
    } else {
        print_line(bench, tokens, &result);
    }
    fflush(stdout);
}

static enum tca_status bench_length(struct bench *bench, int64_t tokens)
{
    struct measurement result;
    struct runs runs;

    for (int i = 0; i < (int)bench->options->warm_up; i++)
        TCA_TRY(measure(bench, tokens, &result));
    for (int i = 0; i < (int)bench->options->repeat; i++) {
        TCA_TRY(measure(bench, tokens, &result));
        runs.prefill_s[i] = result.prefill_s;
        runs.question_s[i] = result.question_s;
        runs.decode_s[i] = result.decode_s;
    }
    report(bench, tokens, &runs);
    return TCA_OK;
}

/* "2048,8192"; returns how many, 0: not a list of positive numbers. */
static int parse_lengths(const char *text, int64_t lengths_out[PROMPTS_MAX])
{
    int count = 0;

    while (text != NULL && count < PROMPTS_MAX) {
        char *end;
        long long value = strtoll(text, &end, 10);

        if (end == text || value < 1 || (*end != ',' && *end != '\0'))
            return 0;
        lengths_out[count++] = value;
        if (*end == '\0')
            return count;
        text = end + 1;
    }
    return 0;
}

/* So that caches, plans and clocks are those of a busy device. */
static enum tca_status warm_up(struct bench *bench, int64_t tokens)
{
    int64_t end_ns = clock_monotonic_ns() + bench->options->warm_up_s * 1000000000;
    struct measurement result;

    while (clock_monotonic_ns() < end_ns)
        TCA_TRY(measure(bench, tokens, &result));
    return TCA_OK;
}

static enum tca_status lead(void *context, const struct group_run *run)
{
    struct bench *bench = context;
    int64_t lengths[PROMPTS_MAX];
    int count = parse_lengths(bench->options->prompt_tokens, lengths);

    bench->run = run;
    bench->now = bench->workload;
    TCA_TRY(warm_up(bench, lengths[0]));
    for (int i = 0; i < count; i++)
        for (int j = 0; j < bench->workloads; j++) {
            bench->now = &bench->workload[j];
            TCA_TRY(bench_length(bench, lengths[i]));
        }
    return TCA_OK;
}

/* False: its rules are none, which was said. */
static bool workload_complete(struct workload *load, const struct options *options)
{
    const char *rules[] = {load->prefill_rule, load->rule};
    struct sparsity *sparsities[] = {&load->prefill, &load->question};

    for (int i = 0; i < 2; i++)
        if (!select_method_parse(rules[i], strlen(rules[i]), &sparsities[i]->method)) {
            fprintf(stderr, "tca-bench: \"%s\" is no rule\n", rules[i]);
            return false;
        }
    load->prefill.dense_below_tokens = options->dense_below;
    return true;
}

/* "block:0.1/pooled:0.03/16": its length, 0: it is none. */
static int workload_parse(const char *text, struct workload *load_out)
{
    int length = 0;

    *load_out = (struct workload){.batch = 0};
    if (sscanf(text, "%31[^:/,]:%lf/%31[^:/,]:%lf/%d%n", load_out->prefill_rule,
               &load_out->prefill.keep, load_out->rule, &load_out->question.keep, &load_out->batch,
               &length) < 5 ||
        !(load_out->prefill.keep > 0 && load_out->prefill.keep <= 1) ||
        !(load_out->question.keep > 0 && load_out->question.keep <= 1) || load_out->batch < 1 ||
        load_out->batch > BATCH_MAX || (text[length] != ',' && text[length] != '\0'))
        return 0;
    return length;
}

static bool read_settings(struct bench *bench)
{
    const char *text = bench->options->settings;

    for (int i = 0; i < WORKLOADS_MAX; i++) {
        struct workload *load = &bench->workload[i];
        int length = workload_parse(text, load);

        if (length == 0)
            break;
        if (!workload_complete(load, bench->options))
            return false;
        bench->workloads = i + 1;
        if (text[length] == '\0')
            return true;
        text += length + 1;
    }
    fprintf(stderr,
            "tca-bench: settings: \"%s\" is no RULE:KEEP/RULE:KEEP/BATCH with shares of at most 1 "
            "and a batch of at most %d, or more than %d of them\n",
            text, BATCH_MAX, WORKLOADS_MAX);
    return false;
}

/* --settings, or the one that the options before it make. */
static bool read_workloads(struct bench *bench)
{
    const struct options *options = bench->options;
    struct workload *load = bench->workload;

    if (options->settings != NULL)
        return read_settings(bench);
    *load = (struct workload){.prefill = {.keep = options->prefill_keep},
                              .question = {.keep = options->keep},
                              .batch = (int)options->batch};
    snprintf(load->prefill_rule, sizeof(load->prefill_rule), "%s", options->prefill_rule);
    snprintf(load->rule, sizeof(load->rule), "%s", options->rule);
    bench->workloads = 1;
    return workload_complete(load, options);
}

static int64_t longest_sequence(const struct options *options, const int64_t *lengths, int count)
{
    int64_t most = 0;

    for (int i = 0; i < count; i++)
        if (lengths[i] > most)
            most = lengths[i];
    return most + options->question_tokens + options->decode_tokens + 1;
}

static int bench_all(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;
    struct group_run_options group = {.model_folder = options->model,
                                      .device = (enum device_wish)options->device,
                                      .local_ranks = (int)options->local_ranks,
                                      .threads = (int)options->threads,
                                      .kv_memory_bytes = options->kv_memory,
                                      .chunk_tokens = (int)options->chunk,
                                      .max_sequences = 1,
                                      .window_tokens = options->window,
                                      .nccl_sums = (enum comm_nccl_sums)options->nccl_sums,
                                      .has_dummy_weights = options->dummy_weights};
    struct bench bench = {.options = options};
    int64_t lengths[PROMPTS_MAX];
    int count = parse_lengths(options->prompt_tokens, lengths);

    (void)arguments;
    if (options->model == NULL || count == 0) {
        fprintf(stderr, "tca-bench: --model DIR and --prompt-tokens N[,N..] are needed\n");
        return 2;
    }
    if (!read_workloads(&bench))
        return 2;
    for (int i = 0; i < bench.workloads; i++)
        if (bench.workload[i].batch > group.max_sequences)
            group.max_sequences = bench.workload[i].batch;
    if (options->dummy_weights) /* of any length */
        group.max_positions = longest_sequence(options, lengths, count);
    return group_run(&group, lead, &bench) == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;

    log_init("tca-bench", LOG_LEVEL_INFO);
    return settings_run(&table, argc, argv, &options, bench_all);
}
