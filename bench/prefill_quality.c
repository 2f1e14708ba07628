/* tca-eval-prefill: what a sparse prefill costs, by what needles cannot see. A document of given
 * token ids is prefilled once for each setting (rule:keep, the first one dense), and for each a
 * JSON line says
 *
 *   kl            mean KL divergence from the dense setting of the next-token distributions over
 *                 a continuation, whose tokens read all of the document's KV
 *   continuation  perplexity of the continuation
 *   second_half   perplexity of the document's second half while it is prefilled. A chunk's
 *                 selection has seen its later queries, so this flatters every rule that observes
 *   l2            per layer, relative L2 error of the attention output against dense attention over
 *                 the same queries, keys and values, over queries that do not observe. */
#include "base/bf16.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"
#include "base/token_ids.h"
#include "worker/group_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MAX = 256, SAMPLES = 32, DOCUMENT_SLOT = 0, QUESTION_SLOT = 1 };

struct options {
    char *model;
    char *ids;
    int64_t tokens;
    int64_t continuation;
    int64_t threads;
    int64_t chunk;
    int64_t window;
    int64_t dense_below;
    char *settings;
    char *profile;
};

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, model), .name = "model", .metavar = "DIR",
     .help = "Hugging Face folder of the model"},
    {SETTING_FIELD(struct options, ids), .name = "ids", .metavar = "FILE",
     .help = "token ids (u32 little-endian) of document and continuation"},
    {SETTING_FIELD(struct options, tokens), .name = "tokens", .initial = "32768", .metavar = "N",
     .help = "of the document", .min = 2, .max = 1 << 20},
    {SETTING_FIELD(struct options, continuation), .name = "continuation", .initial = "512",
     .metavar = "N", .help = "tokens after it", .min = 2, .max = 1 << 20},
    {SETTING_FIELD(struct options, threads), .name = "threads", .metavar = "N",
     .help = "CPU threads; 0: all cores", .max = 1024},
    {SETTING_FIELD(struct options, chunk), .name = "chunk", .initial = "1024", .metavar = "N",
     .help = "prefill tokens of one step", .min = 64, .max = 65536},
    {SETTING_FIELD(struct options, window), .name = "window", .initial = "1024", .metavar = "N",
     .help = "last tokens that every rule keeps", .min = 64, .max = 65536},
    {SETTING_FIELD(struct options, dense_below), .name = "dense-below", .initial = "8192",
     .metavar = "N", .help = "chunks that begin before this position are dense", .max = INT32_MAX},
    {SETTING_FIELD(struct options, settings), .name = "settings",
     .initial = "dense:1,block:0.1,window:0.1", .metavar = "RULE:KEEP,..",
     .help = "what to compare; the first must be dense:1"},
    {SETTING_FIELD(struct options, profile), .name = "profile", .metavar = "FILE",
     .help = "budgets; default: the model folder's, `none`: uniform"},
};

static const struct settings_table table = {
    .program = "tca-eval-prefill", .rows = rows, .count = sizeof(rows) / sizeof(*rows)};

struct layer_error {
    double difference, reference; /* sums of squares */
};

struct eval {
    const struct options *options;
    const struct group_run *run;
    struct token_ids ids;
    struct step_plan plan;
    float *reference; /* owned [continuation, vocab]: log-probabilities of the dense setting */
    bool is_reference;
    int64_t first; /* position of the step's first token */
    bool is_continuation;
    double kl, continuation_nll, second_half_nll;
    int64_t second_half_tokens;
    struct layer_error layer[LAYERS_MAX];
    /* The probe's: dense attention of sampled queries. */
    uint16_t *out; /* device, owned [chunk, q_heads, head_dim] */
    uint16_t *host_out, *host_attended;
    size_t out_bytes;
};

/* Attend densely to everything before the sampled queries of a sparse chunk, and compare. */
static enum tca_status probe_chunk(struct eval *eval, const struct forward_view *view,
                                   const struct forward_item *item)
{
    const struct device *device = view->device;
    const struct kv_layer own = kv_range_layer(item->own, view->kv, view->layer);
    const size_t values = (size_t)view->shape->q_heads * (size_t)view->shape->head_dim;
    struct layer_error *error = &eval->layer[view->layer];
    struct attention_item items[SAMPLES];
    int samples = 0;

    for (int i = 0; i < SAMPLES; i++) {
        const int row = item->rows * i / SAMPLES + 3; /* observers end their strides */

        if (row >= item->rows)
            break;
        items[samples++] = (struct attention_item){.first_query = item->first_row + row,
                                                   .queries = 1,
                                                   .segments = 1,
                                                   .segment = {{.k = own.k,
                                                                .v = own.v,
                                                                .head_stride = own.head_stride,
                                                                .rows = item->own_rows + row + 1}}};
    }
    TCA_TRY(device->backend->attention(device->queue, eval->out, NULL, view->q, view->shape, items,
                                       samples));
    TCA_TRY(device->backend->download(device->queue, eval->host_out, eval->out, eval->out_bytes));
    TCA_TRY(device->backend->download(device->queue, eval->host_attended, view->attended,
                                      eval->out_bytes));
    for (int i = 0; i < samples; i++)
        for (size_t v = 0; v < values; v++) {
            const size_t at = (size_t)items[i].first_query * values + v;
            const double dense = (double)bf16_to_float(eval->host_out[at]);
            const double sparse = (double)bf16_to_float(eval->host_attended[at]);

            error->difference += (sparse - dense) * (sparse - dense);
            error->reference += dense * dense;
        }
    return TCA_OK;
}

static enum tca_status probe(void *context, const struct forward_view *view)
{
    for (int i = 0; i < view->item_count; i++)
        if (view->items[i].chunk != NULL)
            TCA_TRY(probe_chunk(context, view, &view->items[i]));
    return TCA_OK;
}

static double row_lse(const struct logits_row *row)
{
    double most = -INFINITY, sum = 0.0;

    for (int id = 0; id < row->vocab; id++)
        most = fmax(most, (double)row->full[id]);
    for (int id = 0; id < row->vocab; id++)
        sum += exp((double)row->full[id] - most);
    return most + log(sum);
}

static void compare_row(struct eval *eval, int64_t index, const struct logits_row *row, double lse)
{
    float *reference = eval->reference + index * row->vocab;

    for (int id = 0; id < row->vocab; id++) {
        const double logprob = (double)row->full[id] - lse;

        if (eval->is_reference)
            reference[id] = (float)logprob;
        else
            eval->kl += exp((double)reference[id]) * ((double)reference[id] - logprob);
    }
}

static void take_row(void *context, int token, int item, const struct logits_row *row)
{
    struct eval *eval = context;
    const int64_t position = eval->first + token;
    const double lse = row_lse(row);
    double nll;

    (void)item;
    if (position + 1 >= (int64_t)eval->ids.count)
        return;
    nll = lse - (double)row->full[eval->ids.ids[position + 1]];
    if (eval->is_continuation) {
        compare_row(eval, position - eval->options->tokens, row, lse);
        eval->continuation_nll += nll;
    } else if (position >= eval->options->tokens / 2) {
        eval->second_half_nll += nll;
        eval->second_half_tokens++;
    }
}

static enum tca_status open_slot(struct eval *eval, const struct step_open *open)
{
    uint64_t failed = 0;

    step_plan_clear(&eval->plan, eval->plan.number + 1);
    TCA_TRY(step_plan_add_open(&eval->plan, open));
    TCA_TRY(lockstep_lead(eval->run->lockstep, &eval->plan, NULL, NULL, &failed));
    if (failed != 0)
        log_error("no KV memory for %lld tokens", (long long)open->capacity);
    return failed == 0 ? TCA_OK : TCA_ERR_NO_MEMORY;
}

static enum tca_status close_slots(struct eval *eval)
{
    uint64_t failed;

    step_plan_clear(&eval->plan, eval->plan.number + 1);
    TCA_TRY(step_plan_add_close(&eval->plan, QUESTION_SLOT));
    TCA_TRY(step_plan_add_close(&eval->plan, DOCUMENT_SLOT));
    return lockstep_lead(eval->run->lockstep, &eval->plan, NULL, NULL, &failed);
}

/* Run `count` tokens from position `first` on, whole chunks. */
static enum tca_status run_tokens(struct eval *eval, int32_t slot, int64_t first, int64_t count)
{
    const int64_t chunk = eval->options->chunk;

    for (int64_t done = 0; done < count; done += chunk) {
        const bool wants_logits =
            eval->is_continuation || first + done + chunk > eval->options->tokens / 2;
        const struct step_item item = {.slot = slot,
                                       .tokens =
                                           (int32_t)(count - done < chunk ? count - done : chunk),
                                       .own_rows = done,
                                       .logits = wants_logits ? STEP_LOGITS_ALL : STEP_LOGITS_NONE};
        uint64_t failed;

        eval->first = first + done;
        step_plan_clear(&eval->plan, eval->plan.number + 1);
        TCA_TRY(step_plan_add_item(&eval->plan, &item, eval->ids.ids + eval->first));
        TCA_TRY(lockstep_lead(eval->run->lockstep, &eval->plan, take_row, eval, &failed));
    }
    return TCA_OK;
}

static void print_result(const struct eval *eval, const char *setting, double prefill_s)
{
    const int layers = model_shard_config(eval->run->shard)->layers;
    const struct options *options = eval->options;

    printf("{\"setting\":\"%s\",\"tokens\":%lld,\"chunk\":%lld,\"window\":%lld,"
           "\"dense_below\":%lld,\"continuation\":%lld,\"kl\":%.6f,\"continuation_ppl\":%.5f,"
           "\"second_half_ppl\":%.5f,\"prefill_s\":%.3f,\"l2\":[",
           setting, (long long)options->tokens, (long long)options->chunk,
           (long long)options->window, (long long)options->dense_below,
           (long long)options->continuation, eval->kl / (double)(options->continuation - 1),
           exp(eval->continuation_nll / (double)(options->continuation - 1)),
           exp(eval->second_half_nll / (double)eval->second_half_tokens), prefill_s);
    for (int i = 0; i < layers; i++)
        printf("%s%.5f", i == 0 ? "" : ",",
               eval->layer[i].reference > 0.0
                   ? sqrt(eval->layer[i].difference / eval->layer[i].reference)
                   : 0.0);
    printf("]}\n");
    fflush(stdout);
}

static enum tca_status run_setting(struct eval *eval, const char *setting,
                                   const struct sparsity *sparsity)
{
    const struct options *options = eval->options;
    const struct step_open document = {.slot = DOCUMENT_SLOT,
                                       .base_slot = STEP_SLOT_NONE,
                                       .capacity = options->tokens,
                                       .sparsity = *sparsity};
    const struct step_open question = {.slot = QUESTION_SLOT,
                                       .base_slot = DOCUMENT_SLOT,
                                       .capacity = options->continuation,
                                       .base_tokens = options->tokens};
    const int64_t start_ns = clock_monotonic_ns();
    double prefill_s;

    eval->kl = eval->continuation_nll = eval->second_half_nll = 0.0;
    eval->second_half_tokens = 0;
    memset(eval->layer, 0, sizeof(eval->layer));
    eval->is_continuation = false;
    TCA_TRY(open_slot(eval, &document));
    TCA_TRY(run_tokens(eval, DOCUMENT_SLOT, 0, options->tokens));
    prefill_s = (double)(clock_monotonic_ns() - start_ns) * 1e-9;
    eval->is_continuation = true;
    TCA_TRY(open_slot(eval, &question));
    TCA_TRY(run_tokens(eval, QUESTION_SLOT, options->tokens, options->continuation));
    TCA_TRY(close_slots(eval));
    print_result(eval, setting, prefill_s);
    return TCA_OK;
}

/* "rule:keep" up to a comma; returns what follows, NULL: it is none. */
static const char *read_setting(const char *text, char name_out[64], struct sparsity *sparsity_out)
{
    const size_t length = strcspn(text, ",");
    const char *colon = memchr(text, ':', length);
    char *end;

    if (colon == NULL || length >= 64 ||
        !select_method_parse(text, (size_t)(colon - text), &sparsity_out->method))
        return NULL;
    sparsity_out->keep = strtod(colon + 1, &end);
    if (end != text + length || !(sparsity_out->keep > 0.0 && sparsity_out->keep <= 1.0))
        return NULL;
    memcpy(name_out, text, length);
    name_out[length] = '\0';
    return text[length] == ',' ? text + length + 1 : text + length;
}

static enum tca_status run_settings(struct eval *eval)
{
    const char *text = eval->options->settings;

    eval->is_reference = true;
    while (*text != '\0') {
        struct sparsity sparsity = {.dense_below_tokens = eval->options->dense_below};
        char name[64];

        text = read_setting(text, name, &sparsity);
        if (text == NULL || (eval->is_reference && sparsity.method.rule != SELECT_DENSE)) {
            log_error("settings: \"%s\" is no list of RULE:KEEP that begins with dense:1",
                      eval->options->settings);
            return TCA_ERR_INVALID;
        }
        TCA_TRY(run_setting(eval, name, &sparsity));
        eval->is_reference = false;
    }
    return TCA_OK;
}

static enum tca_status check_ids(const struct eval *eval, int vocab)
{
    const int64_t wanted = eval->options->tokens + eval->options->continuation;

    if ((int64_t)eval->ids.count < wanted) {
        log_error("%s: %zu ids, wanted are %lld", eval->options->ids, eval->ids.count,
                  (long long)wanted);
        return TCA_ERR_RANGE;
    }
    for (int64_t i = 0; i < wanted; i++)
        if (eval->ids.ids[i] < 0 || eval->ids.ids[i] >= vocab) {
            log_error("%s: id %d is not in 0..%d", eval->options->ids, eval->ids.ids[i], vocab - 1);
            return TCA_ERR_RANGE;
        }
    return TCA_OK;
}

static enum tca_status allocate(struct eval *eval)
{
    const struct model_config *config = model_shard_config(eval->run->shard);
    const struct device *device = model_shard_device(eval->run->shard);
    void *out;

    eval->out_bytes = (size_t)eval->options->chunk * (size_t)config->q_heads *
                      (size_t)config->head_dim * sizeof(uint16_t);
    eval->host_out = malloc(eval->out_bytes);
    eval->host_attended = malloc(eval->out_bytes);
    eval->reference =
        malloc((size_t)eval->options->continuation * (size_t)config->vocab * sizeof(float));
    if (eval->host_out == NULL || eval->host_attended == NULL || eval->reference == NULL)
        return TCA_ERR_NO_MEMORY;
    TCA_TRY(device->backend->alloc(device->index, eval->out_bytes, &out));
    eval->out = out;
    return TCA_OK;
}

static enum tca_status lead(void *context, const struct group_run *run)
{
    struct eval *eval = context;
    const struct step_limits limits = model_shard_limits(run->shard);
    const struct device *device = model_shard_device(run->shard);
    enum tca_status status;

    eval->run = run;
    TCA_TRY(check_ids(eval, model_shard_config(run->shard)->vocab));
    eval->ids.count = (size_t)(eval->options->tokens + eval->options->continuation);
    status = allocate(eval);
    if (status == TCA_OK)
        status = step_plan_init(&eval->plan, &limits);
    if (status == TCA_OK) {
        model_shard_set_probe(run->shard, probe, eval);
        status = run_settings(eval);
        model_shard_set_probe(run->shard, NULL, NULL);
    }
    step_plan_deinit(&eval->plan);
    device->backend->free(device->index, eval->out, eval->out_bytes);
    free(eval->host_out);
    free(eval->host_attended);
    free(eval->reference);
    return status;
}

static int evaluate(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;
    const struct group_run_options group = {.model_folder = options->model,
                                            .local_ranks = 1,
                                            .threads = (int)options->threads,
                                            .chunk_tokens = (int)options->chunk,
                                            .max_sequences = 2,
                                            .window_tokens = options->window,
                                            .profile = options->profile};
    struct eval eval = {.options = options};
    enum tca_status status;

    (void)arguments;
    if (options->model == NULL || options->ids == NULL) {
        fprintf(stderr, "tca-eval-prefill: --model DIR and --ids FILE are needed\n");
        return 2;
    }
    status = token_ids_read_file(&eval.ids, options->ids);
    if (status != TCA_OK)
        fprintf(stderr, "tca-eval-prefill: %s: %s\n", options->ids, tca_status_text(status));
    else
        status = group_run(&group, lead, &eval);
    token_ids_free(&eval.ids);
    return status == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;

    log_init("tca-eval-prefill", LOG_LEVEL_INFO);
    return settings_run(&table, argc, argv, &options, evaluate);
}
