/* `tca ask` and `tca generate`: a question goes out, its answer streams to stdout. */
#include "base/clock.h"
#include "client/commands.h"
#include "client/format.h"
#include "client/heatmap.h"
#include "client/input.h"
#include "client/output_file.h"
#include "client/session.h"
#include "proto/message.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What the events have said so far. */
struct answer {
    struct session *session;
    bool is_line_open;     /* the last character was no newline */
    bool is_heard;         /* somebody still reads stdout */
    bool is_sampled;       /* not greedy */
    uint64_t seed;         /* as the server says */
    struct bytes logprobs; /* lines for stderr after the answer; owned */
    char usage[10][96];    /* parts of the closing line */
    size_t usage_parts;
    struct heatmap *heatmap; /* to collect selections in; NULL: not wanted */
    enum tca_status heatmap_status;
    struct tca_error heatmap_error;
};

/* Every part of a request that must live as long as it. */
struct ask {
    Tca__V1__AskRequest request;
    Tca__V1__SamplingParams sampling;
    Tca__V1__AttentionOptions attention;
    ProtobufCBinaryData *stop; /* owned */
    struct bytes text;         /* of the question or prompt; owned */
};

/* TCA_ERR_INVALID: a usage error. Free in any case. */
static enum tca_status ask_init(struct ask *ask, const struct client_options *options,
                                const char *text, struct tca_error *error)
{
    int32_t top_k;

    memset(ask, 0, sizeof(*ask));
    tca__v1__ask_request__init(&ask->request);
    tca__v1__sampling_params__init(&ask->sampling);
    tca__v1__attention_options__init(&ask->attention);
    TCA_TRY(input_int32("max-tokens", options->max_tokens, &ask->request.max_tokens, error));
    TCA_TRY(input_int32("logprobs", options->logprobs, &ask->request.logprobs, error));
    TCA_TRY(input_int32("top-k", options->top_k, &top_k, error));
    if (options->seed != NULL)
        TCA_TRY(input_uint64("seed", options->seed, &ask->sampling.seed, error));
    TCA_TRY(input_text(text, &ask->text, error));
    ask->sampling.temperature = options->temperature;
    ask->sampling.top_k = top_k;
    ask->sampling.top_p = options->top_p;
    ask->sampling.min_p = options->min_p;
    ask->sampling.repetition_penalty = options->repetition_penalty;
    ask->request.sampling = &ask->sampling;
    ask->attention.rule = input_option(options->rule);
    ask->attention.keep = options->keep;
    ask->attention.tau = options->tau;
    ask->attention.evict = options->evict;
    ask->attention.report_selection = options->heatmap != NULL;
    ask->request.attention = &ask->attention;
    ask->request.raw = options->raw;
    ask->request.parse_special = options->parse_special;
    ask->request.no_wait = options->no_wait;
    ask->request.ignore_eos = options->ignore_eos;
    ask->stop = calloc(options->stop.count + 1, sizeof(*ask->stop));
    if (ask->stop == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < options->stop.count; i++)
        ask->stop[i] = input_option(options->stop.items[i]);
    ask->request.stop = ask->stop;
    ask->request.n_stop = options->stop.count;
    return TCA_OK;
}

static void ask_free(struct ask *ask)
{
    free(ask->stop);
    bytes_free(&ask->text);
}

static enum tca_status append_logprob(struct bytes *out, const Tca__V1__TokenLogprob *chosen)
{
    char text[64];

    snprintf(text, sizeof(text), "%" PRId32 " %.4f :", chosen->token_id, (double)chosen->logprob);
    TCA_TRY(bytes_append_text(out, text));
    for (size_t i = 0; i < chosen->n_top; i++) {
        snprintf(text, sizeof(text), " %" PRId32 " %.4f", chosen->top[i]->token_id,
                 (double)chosen->top[i]->logprob);
        TCA_TRY(bytes_append_text(out, text));
    }
    return bytes_append_text(out, "\n");
}

static void show_delta(struct answer *answer, const Tca__V1__AskEvent__Delta *delta)
{
    progress_clear(&answer->session->progress);
    if (delta->text.len > 0) {
        answer->is_heard = session_print_text(answer->session, delta->text.data, delta->text.len);
        answer->is_line_open = delta->text.data[delta->text.len - 1] != '\n';
    }
    for (size_t i = 0; i < delta->n_logprobs; i++)
        append_logprob(&answer->logprobs, delta->logprobs[i]);
}

static void show_progress(struct answer *answer, const Tca__V1__AskEvent__Progress *progress)
{
    struct progress_state state = {
        .phase = "reading",
        .unit = PROGRESS_TOKENS,
        .done = progress->tokens_done,
        .total = progress->tokens_total,
        .eta_ms = progress->eta_ms,
    };

    if (progress->tokens_done < progress->tokens_total) /* else the answer comes at once */
        progress_show(&answer->session->progress, &state, clock_monotonic_ms());
}

static void add_usage(struct answer *answer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add_usage(struct answer *answer, const char *format, ...)
{
    char *part = answer->usage[answer->usage_parts++];
    va_list values;

    va_start(values, format);
    vsnprintf(part, sizeof(answer->usage[0]), format, values);
    va_end(values);
}

/* What of the KV cache the answer read: of a document, or of a prompt that was cut. */
static void take_kept(struct answer *answer, const Tca__V1__Usage *usage)
{
    const bool is_sparse = usage->kept_share > 0 && usage->kept_share < 1;
    char core[FORMAT_BYTES], full[FORMAT_BYTES];

    if (is_sparse || (usage->document_tokens > 0 && usage->kept_share > 0))
        add_usage(answer, "kept %.1f %% of the cache", usage->kept_share * 100);
    if (!is_sparse)
        return;
    if (usage->kept_mass_mean > 0)
        add_usage(answer, "mass %.1f %% (least %.1f %%)", usage->kept_mass_mean * 100,
                  usage->kept_mass_min * 100);
    if (usage->full_kv_bytes > 0) {
        format_size(usage->core_cache_bytes, core);
        format_size(usage->full_kv_bytes, full);
        add_usage(answer, "core cache %s of %s", core, full);
    }
}

static void take_usage(struct answer *answer, const Tca__V1__AskEvent__Finished *finished)
{
    const ProtobufCEnumValue *reason = protobuf_c_enum_descriptor_get_value(
        &tca__v1__ask_event__finished__reason__descriptor, (int)finished->reason);
    const Tca__V1__Usage *usage = finished->usage;
    char text[FORMAT_BYTES], rate[FORMAT_BYTES];

    answer->usage_parts = 0; /* a server that finishes twice must not fill more than there is */
    add_usage(answer, "%s", reason != NULL ? reason->name : "UNKNOWN");
    if (usage == NULL)
        return;
    if (usage->document_tokens > 0) {
        format_count(usage->document_tokens, text);
        add_usage(answer, "%s document tokens", text);
    }
    add_usage(answer, "%" PRIu64 " question + %" PRIu64 " answer tokens", usage->question_tokens,
              usage->completion_tokens);
    format_duration(usage->first_token_ms, text);
    add_usage(answer, "first token %s", text);
    if (usage->decode_ms > 0 && usage->completion_tokens > 1) {
        format_rate((double)(usage->completion_tokens - 1) * 1000 / (double)usage->decode_ms, rate);
        add_usage(answer, "then %s tokens/s", rate);
    }
    take_kept(answer, usage);
    if (answer->is_sampled)
        add_usage(answer, "seed %" PRIu64, answer->seed);
}

/* What the heatmap is made of. */
static void collect_event(struct answer *answer, const Tca__V1__AskEvent *event)
{
    const Tca__V1__AskEvent__Selection *selection = event->selection;

    if (event->body_case == TCA__V1__ASK_EVENT__BODY_ACCEPTED)
        answer->heatmap->document_tokens = event->accepted->document_tokens;
    else if (event->body_case == TCA__V1__ASK_EVENT__BODY_SELECTION &&
             answer->heatmap_status == TCA_OK)
        answer->heatmap_status =
            heatmap_add(answer->heatmap, selection->layer, selection->kv_head, selection->bins,
                        selection->n_bins, &answer->heatmap_error);
}

static void show_event(struct answer *answer, const Tca__V1__AskEvent *event)
{
    if (answer->session->is_json) {
        answer->is_heard = session_print_json(answer->session, &event->base);
        return;
    }
    switch (event->body_case) {
    case TCA__V1__ASK_EVENT__BODY_ACCEPTED:
        answer->seed = event->accepted->seed;
        break;
    case TCA__V1__ASK_EVENT__BODY_PROGRESS:
        show_progress(answer, event->progress);
        break;
    case TCA__V1__ASK_EVENT__BODY_DELTA:
        show_delta(answer, event->delta);
        break;
    case TCA__V1__ASK_EVENT__BODY_FINISHED:
        take_usage(answer, event->finished);
        break;
    case TCA__V1__ASK_EVENT__BODY_SELECTION:
    case TCA__V1__ASK_EVENT__BODY_HEARTBEAT:
    case TCA__V1__ASK_EVENT__BODY__NOT_SET:
    case _TCA__V1__ASK_EVENT__BODY__CASE_IS_INT_SIZE:
        break;
    }
}

/* After the answer: its newline on stdout, what it took on stderr. */
static void show_end(struct answer *answer)
{
    progress_clear(&answer->session->progress);
    if (answer->is_line_open && answer->is_heard)
        session_print(answer->session, "\n", 1);
    if (answer->logprobs.size > 0)
        fwrite(answer->logprobs.data, 1, answer->logprobs.size, stderr);
    for (size_t i = 0; i < answer->usage_parts; i++)
        fprintf(stderr, "%s%s", i == 0 ? "[" : "; ", answer->usage[i]);
    if (answer->usage_parts > 0)
        fprintf(stderr, "]\n");
}

static int ask_and_show(struct answer *answer, const Tca__V1__AskRequest *request)
{
    void *event;
    struct call call;

    if (!call_request(&call, answer->session, "/tca.v1.Generation/Ask", &request->base))
        return EXIT_REFUSED;
    while ((event = call_receive(&call, &tca__v1__ask_event__descriptor)) != NULL) {
        if (answer->heatmap != NULL)
            collect_event(answer, event);
        if (answer->is_heard)
            show_event(answer, event);
        if (!answer->is_heard)
            call_cancel(&call); /* which ends the question on the server */
        message_free(event);
    }
    show_end(answer);
    bytes_free(&answer->logprobs);
    return call_finish(&call);
}

/* Into the file, or away with it: there is a picture only of an answer that selected. */
static int finish_heatmap(struct answer *answer, const Tca__V1__AskRequest *request,
                          struct output_file *file, int code)
{
    const struct heatmap_caption caption = {
        .question = request->question.data,
        .question_bytes = request->question.len,
        /* As message_text made them: with their NUL. */
        .document_id = (const char *)request->document_id.data,
        .rule = (const char *)request->attention->rule.data,
    };
    struct bytes svg = {0};
    enum tca_status status = answer->heatmap_status;

    if (code != EXIT_DONE || (status == TCA_OK && answer->heatmap->count == 0)) {
        if (code == EXIT_DONE)
            fprintf(stderr, "tca: %s: not written, the answer read all of the document\n",
                    file->path);
        output_file_discard(file);
        return code;
    }
    if (status == TCA_OK) {
        status = heatmap_draw(answer->heatmap, &caption, &svg);
        if (status != TCA_OK)
            tca_fail(&answer->heatmap_error, status, "%s: %s", file->path, tca_status_text(status));
    }
    if (status == TCA_OK)
        status = output_file_commit(file, &svg, &answer->heatmap_error);
    else
        output_file_discard(file);
    bytes_free(&svg);
    return status == TCA_OK ? code : session_fail_here(answer->session, answer->heatmap_error.text);
}

static int run(struct session *session, const Tca__V1__AskRequest *request,
               const char *heatmap_path)
{
    struct answer answer = {
        .session = session, .is_heard = true, .is_sampled = request->sampling->temperature > 0};
    struct heatmap heatmap = {0};
    struct output_file file;
    struct tca_error error = {0};
    int code;

    if (heatmap_path == NULL)
        return ask_and_show(&answer, request);
    if (output_file_open(&file, heatmap_path, &error) != TCA_OK)
        return session_fail_here(session, error.text);
    answer.heatmap = &heatmap;
    code = ask_and_show(&answer, request);
    code = finish_heatmap(&answer, request, &file, code);
    heatmap_free(&heatmap);
    return code;
}

static int ask_run(struct session *session, const struct client_options *options,
                   const char *document_id, const char *text)
{
    struct tca_error error = {0};
    struct ask ask;
    enum tca_status status = ask_init(&ask, options, text, &error);
    int code;

    if (status == TCA_ERR_INVALID) {
        fprintf(stderr, "tca: %s\n", error.text);
        code = EXIT_USAGE;
    } else if (status != TCA_OK) {
        code = session_fail_here(session, error.text);
    } else {
        ProtobufCBinaryData field = {.len = ask.text.size, .data = ask.text.data};

        if (document_id != NULL) {
            ask.request.source_case = TCA__V1__ASK_REQUEST__SOURCE_DOCUMENT_ID;
            ask.request.document_id = message_text(document_id);
            ask.request.question = field;
        } else {
            ask.request.source_case = TCA__V1__ASK_REQUEST__SOURCE_PROMPT;
            ask.request.prompt = field;
        }
        code = run(session, &ask.request, options->heatmap);
    }
    ask_free(&ask);
    return code;
}

COMMAND_FUNCTION(ask)
{
    return ask_run(session, options, arguments[0], arguments[1]);
}

COMMAND_FUNCTION(generate)
{
    return ask_run(session, options, NULL, arguments[0]);
}
