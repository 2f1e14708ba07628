/* tca-eval: what a model says about given tokens, for comparing it with other implementations.
 *
 * --score FILE (token ids, u32 little-endian): the tokens run through the chunked prefill as one
 * prompt; for each position a JSON line with the log-probability of the actual next token, the
 * top token and its margin over the second.
 * --prompts FILE (one prompt a line, ids separated by spaces): a greedy continuation of each
 * through the engine, all prompts batched, a JSON line each with ids, log-probabilities and
 * margins. */
#include "base/log.h"
#include "base/settings.h"
#include "base/token_ids.h"
#include "worker/group_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS_MAX = 256 };

struct options {
    char *model;
    int device;
    int64_t local_ranks;
    int64_t threads;
    int64_t chunk;
    int64_t kv_memory;
    char *score;
    char *prompts;
    int64_t greedy_tokens;
};

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
    {SETTING_FIELD(struct options, chunk), .name = "chunk", .metavar = "N",
     .help = "prefill tokens of one step; 0: 1024 on CPUs, 4096 on GPUs", .max = 1 << 20},
    {SETTING_FIELD(struct options, kv_memory), .name = "kv-memory", .metavar = "BYTES",
     .help = "KV memory of a rank; 0: half of what is free", .is_bytes = true},
    {SETTING_FIELD(struct options, score), .name = "score", .metavar = "FILE",
     .help = "token ids (u32 little-endian) to score"},
    {SETTING_FIELD(struct options, prompts), .name = "prompts", .metavar = "FILE",
     .help = "prompts to continue greedily: ids separated by spaces, one prompt a line"},
    {SETTING_FIELD(struct options, greedy_tokens), .name = "greedy-tokens", .initial = "64",
     .metavar = "N", .help = "length of a continuation", .min = 1, .max = 1 << 20},
};

static const struct settings_table table = {
    .program = "tca-eval", .rows = rows, .count = sizeof(rows) / sizeof(*rows)};

struct eval {
    const struct options *options;
    struct token_ids score;                /* ids to score */
    struct token_ids prompts[PROMPTS_MAX]; /* ids to continue */
    int prompt_count;
    int64_t chunk_start;    /* position of the first token of the chunk being scored */
    struct answer *answers; /* [prompt_count] */
    int ended;
};

/* One greedy continuation. */
struct answer {
    struct sampled_token *tokens;
    int count;
};

static enum tca_status read_prompt(const char *line, struct token_ids *ids_out)
{
    while (true) {
        char *end;
        long long value = strtoll(line, &end, 10);
        int32_t id = (int32_t)value;

        if (end == line)
            return line[strspn(line, " \t\r\n")] == '\0' ? TCA_OK : TCA_ERR_INVALID;
        if (value < 0 || value > INT32_MAX)
            return TCA_ERR_INVALID;
        TCA_TRY(token_ids_append(ids_out, &id, 1));
        line = end;
    }
}

static enum tca_status read_prompts_file(const char *path, struct eval *eval)
{
    FILE *file = fopen(path, "r");
    enum tca_status status = TCA_OK;
    size_t room = 0;
    char *line = NULL;

    if (file == NULL)
        return TCA_ERR_NOT_FOUND;
    while (status == TCA_OK && getline(&line, &room, file) >= 0) {
        struct token_ids *prompt = &eval->prompts[eval->prompt_count];

        if (eval->prompt_count == PROMPTS_MAX) {
            status = TCA_ERR_RANGE;
            break;
        }
        status = read_prompt(line, prompt);
        eval->prompt_count += prompt->count > 0;
    }
    free(line);
    fclose(file);
    return status == TCA_OK && eval->prompt_count == 0 ? TCA_ERR_INVALID : status;
}

/* A row's two best and its log-sum-exp in doubles. */
static void print_score(void *context, int token, int item, const struct logits_row *row)
{
    struct eval *eval = context;
    int64_t position = eval->chunk_start + token;
    int best = 0;
    int second = -1;
    double sum = 0.0;
    double lse;
    int32_t actual;

    (void)item;
    if (position + 1 >= (int64_t)eval->score.count)
        return;
    for (int id = 1; id < row->vocab; id++) {
        if (row->full[id] > row->full[best]) {
            second = best;
            best = id;
        } else if (second < 0 || row->full[id] > row->full[second]) {
            second = id;
        }
    }
    for (int id = 0; id < row->vocab; id++)
        sum += exp((double)row->full[id] - (double)row->full[best]);
    lse = (double)row->full[best] + log(sum);
    actual = eval->score.ids[position + 1];
    printf("{\"position\":%lld,\"token_id\":%d,\"logprob\":%.6f,\"top\":%d,\"top_logprob\":%.6f,"
           "\"margin\":%.6f}\n",
           (long long)position, actual, (double)row->full[actual] - lse, best,
           (double)row->full[best] - lse,
           second < 0 ? 0.0 : (double)row->full[best] - (double)row->full[second]);
}

/* Runs the ids as one sequence in slot 0, all logits wanted. */
static enum tca_status score_chunks(struct eval *eval, const struct group_run *run,
                                    struct step_plan *plan)
{
    struct step_open open = {.base_slot = STEP_SLOT_NONE, .capacity = (int64_t)eval->score.count};
    int64_t count = (int64_t)eval->score.count;
    uint64_t failed_opens;

    step_plan_add_open(plan, &open);
    TCA_TRY(lockstep_lead(run->lockstep, plan, NULL, NULL, &failed_opens));
    if (failed_opens != 0) {
        log_error("no KV memory for %lld tokens", (long long)count);
        return TCA_ERR_NO_MEMORY;
    }
    for (int64_t start = 0; start < count; start += run->chunk_tokens) {
        int64_t left = count - start;
        struct step_item item = {.tokens =
                                     (int32_t)(left < run->chunk_tokens ? left : run->chunk_tokens),
                                 .own_rows = start,
                                 .logits = STEP_LOGITS_ALL};

        step_plan_clear(plan, plan->number + 1);
        TCA_TRY(step_plan_add_item(plan, &item, eval->score.ids + start));
        eval->chunk_start = start;
        TCA_TRY(lockstep_lead(run->lockstep, plan, print_score, eval, &failed_opens));
    }
    step_plan_clear(plan, plan->number + 1);
    step_plan_add_close(plan, 0);
    return lockstep_lead(run->lockstep, plan, NULL, NULL, &failed_opens);
}

static enum tca_status score(struct eval *eval, const struct group_run *run)
{
    struct step_limits limits = model_shard_limits(run->shard);
    struct step_plan plan;
    enum tca_status status;

    TCA_TRY(step_plan_init(&plan, &limits));
    status = score_chunks(eval, run, &plan);
    step_plan_deinit(&plan);
    return status;
}

static void collect(void *context, const struct engine_event *event)
{
    struct eval *eval = context;

    if (event->kind == ENGINE_QUESTION_TOKEN) {
        struct answer *answer = &eval->answers[event->key - 1];

        answer->tokens[answer->count++] = *event->token;
    } else if (event->kind == ENGINE_QUESTION_DONE) {
        eval->ended++;
        if (event->end == QUESTION_FAILED)
            log_error("prompt %llu: %s", (unsigned long long)event->key - 1, event->message);
    }
}

static void print_answer(int prompt, const struct answer *answer)
{
    printf("{\"prompt\":%d,\"token_ids\":[", prompt);
    for (int i = 0; i < answer->count; i++)
        printf("%s%d", i == 0 ? "" : ",", answer->tokens[i].chosen.id);
    printf("],\"logprobs\":[");
    for (int i = 0; i < answer->count; i++)
        printf("%s%.6f", i == 0 ? "" : ",", (double)answer->tokens[i].chosen.logprob);
    printf("],\"margins\":[");
    for (int i = 0; i < answer->count; i++)
        printf("%s%.6f", i == 0 ? "" : ",",
               (double)(answer->tokens[i].best[0].logprob - answer->tokens[i].best[1].logprob));
    printf("]}\n");
}

static enum tca_status continue_prompts(struct eval *eval, struct engine *engine)
{
    bool is_busy = true;

    for (int i = 0; i < eval->prompt_count; i++) {
        struct question_params params = {
            .key = (uint64_t)i + 1,
            .tokens = (int64_t)eval->prompts[i].count,
            .max_tokens = eval->options->greedy_tokens,
            .sampling = {.top_p = 1.0, .repetition_penalty = 1.0, .logprobs = 2}};

        eval->answers[i].tokens =
            calloc((size_t)params.max_tokens, sizeof(*eval->answers[i].tokens));
        if (eval->answers[i].tokens == NULL)
            return TCA_ERR_NO_MEMORY;
        engine_open_question(engine, &params);
        engine_receive_question(engine, params.key, eval->prompts[i].ids,
                                (int64_t)eval->prompts[i].count);
    }
    while (is_busy)
        TCA_TRY(engine_step(engine, &is_busy));
    for (int i = 0; i < eval->prompt_count; i++)
        print_answer(i, &eval->answers[i]);
    return eval->ended == eval->prompt_count ? TCA_OK : TCA_ERR_ABORTED;
}

static enum tca_status greedy(struct eval *eval, const struct group_run *run)
{
    struct engine_options options = {.chunk_tokens = run->chunk_tokens,
                                     .max_sequences = eval->prompt_count,
                                     .max_positions =
                                         model_shard_config(run->shard)->max_positions};
    struct engine *engine;
    enum tca_status status;

    eval->answers = calloc((size_t)eval->prompt_count, sizeof(*eval->answers));
    if (eval->answers == NULL)
        return TCA_ERR_NO_MEMORY;
    status = engine_create(&options, run->lockstep, run->shard, collect, eval, &engine);
    if (status == TCA_OK) {
        status = continue_prompts(eval, engine);
        engine_destroy(engine);
    }
    for (int i = 0; i < eval->prompt_count; i++)
        free(eval->answers[i].tokens);
    free(eval->answers);
    return status;
}

static enum tca_status check_ids(const struct token_ids *ids, int vocab)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->ids[i] >= 0 && ids->ids[i] < vocab)
            continue;
        log_error("token %zu: id %d is not in 0..%d", i, ids->ids[i], vocab - 1);
        return TCA_ERR_RANGE;
    }
    return TCA_OK;
}

static enum tca_status lead(void *context, const struct group_run *run)
{
    struct eval *eval = context;

    if (eval->score.count > 0) {
        TCA_TRY(check_ids(&eval->score, model_shard_config(run->shard)->vocab));
        TCA_TRY(score(eval, run));
    }
    return eval->prompt_count > 0 ? greedy(eval, run) : TCA_OK;
}

static int evaluate(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;
    struct eval eval = {.options = options};
    struct group_run_options group = {.model_folder = options->model,
                                      .device = (enum device_wish)options->device,
                                      .local_ranks = (int)options->local_ranks,
                                      .threads = (int)options->threads,
                                      .kv_memory_bytes = options->kv_memory,
                                      .chunk_tokens = (int)options->chunk,
                                      .max_sequences = PROMPTS_MAX};
    enum tca_status status = TCA_OK;

    (void)arguments;
    if (options->model == NULL || (options->score == NULL && options->prompts == NULL)) {
        fprintf(stderr, "tca-eval: --model DIR and --score FILE or --prompts FILE are needed\n");
        return 2;
    }
    if (options->score != NULL)
        status = token_ids_read_file(&eval.score, options->score);
    if (status == TCA_OK && options->score != NULL && eval.score.count < 2)
        status = TCA_ERR_INVALID;
    if (status == TCA_OK && options->prompts != NULL)
        status = read_prompts_file(options->prompts, &eval);
    if (status != TCA_OK)
        fprintf(stderr, "tca-eval: reading token ids: %s\n", tca_status_text(status));
    else
        status = group_run(&group, lead, &eval);
    token_ids_free(&eval.score);
    for (int i = 0; i < eval.prompt_count; i++)
        token_ids_free(&eval.prompts[i]);
    return status == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;

    log_init("tca-eval", LOG_LEVEL_INFO);
    return settings_run(&table, argc, argv, &options, evaluate);
}
