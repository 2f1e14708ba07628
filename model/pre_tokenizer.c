#include "model/pre_tokenizer.h"

#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    JIT_STACK_MIN = 32 << 10,
    JIT_STACK_MAX = 8 << 20,
    MATCH_LIMIT = 1000 * 1000 * 1000,
    HEAP_LIMIT_KIB = 1 << 20,
};

struct pre_tokenizer_run {
    const struct pre_tokenizer *pre_tokenizer; /* borrowed */
    pcre2_match_data *match;                   /* one pair of offsets: the whole match */
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    bool has_jit[PRE_TOKENIZER_STAGES_MAX];
    pre_token_fn take;
    void *context;
};

enum tca_status pre_tokenizer_add(struct pre_tokenizer *pre_tokenizer, const char *pattern,
                                  size_t bytes, struct tca_error *error)
{
    PCRE2_SIZE position = 0;
    int code = 0;
    pcre2_code *stage;

    if (pre_tokenizer->stage_count == PRE_TOKENIZER_STAGES_MAX)
        return tca_fail(error, TCA_ERR_UNSUPPORTED, "more than %d stages",
                        PRE_TOKENIZER_STAGES_MAX);
    stage = pcre2_compile((PCRE2_SPTR)pattern, bytes,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &position, NULL);
    if (stage == NULL) {
        PCRE2_UCHAR reason[128] = "";

        if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
            return tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
        pcre2_get_error_message(code, reason, sizeof(reason));
        return tca_fail(error, TCA_ERR_INVALID, "%s", (const char *)reason);
    }
    /* Without a JIT for this processor the interpreter does the work. */
    pcre2_jit_compile(stage, PCRE2_JIT_COMPLETE);
    pre_tokenizer->stages[pre_tokenizer->stage_count++] = stage;
    return TCA_OK;
}

void pre_tokenizer_free(struct pre_tokenizer *pre_tokenizer)
{
    for (int i = 0; i < pre_tokenizer->stage_count; i++)
        pcre2_code_free(pre_tokenizer->stages[i]);
    *pre_tokenizer = (struct pre_tokenizer){0};
}

enum tca_status pre_tokenizer_run_create(const struct pre_tokenizer *pre_tokenizer,
                                         struct pre_tokenizer_run **run_out)
{
    struct pre_tokenizer_run *run = calloc(1, sizeof(*run));

    if (run == NULL)
        return TCA_ERR_NO_MEMORY;
    run->pre_tokenizer = pre_tokenizer;
    run->match = pcre2_match_data_create(1, NULL);
    run->limits = pcre2_match_context_create(NULL);
    run->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    if (run->match == NULL || run->limits == NULL) {
        pre_tokenizer_run_destroy(run);
        return TCA_ERR_NO_MEMORY;
    }
    pcre2_set_match_limit(run->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(run->limits, HEAP_LIMIT_KIB);
    if (run->stack != NULL)
        pcre2_jit_stack_assign(run->limits, NULL, run->stack);
    for (int i = 0; i < pre_tokenizer->stage_count; i++) {
        size_t jit_bytes = 0;

        pcre2_pattern_info(pre_tokenizer->stages[i], PCRE2_INFO_JITSIZE, &jit_bytes);
        run->has_jit[i] = jit_bytes > 0;
    }
    *run_out = run;
    return TCA_OK;
}

void pre_tokenizer_run_destroy(struct pre_tokenizer_run *run)
{
    if (run == NULL)
        return;
    pcre2_match_data_free(run->match);
    pcre2_match_context_free(run->limits);
    pcre2_jit_stack_free(run->stack);
    free(run);
}

/* PCRE2's code: above 0 a match, PCRE2_ERROR_NOMATCH, or another error. */
static int match_at(struct pre_tokenizer_run *run, int stage, const char *text, size_t bytes,
                    size_t at)
{
    const pcre2_code *code = run->pre_tokenizer->stages[stage];
    int found = PCRE2_ERROR_JIT_STACKLIMIT;

    /* The text was validated once, by our caller; to do so at each match would be quadratic. */
    if (run->has_jit[stage])
        found = pcre2_jit_match(code, (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK, run->match,
                                run->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(code, (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            run->match, run->limits);
    return found;
}

static enum tca_status split(struct pre_tokenizer_run *run, int stage, const char *text,
                             size_t bytes)
{
    const PCRE2_SIZE *match = pcre2_get_ovector_pointer(run->match);
    size_t done = 0, at = 0;

    if (stage == run->pre_tokenizer->stage_count)
        return run->take(run->context, text, bytes);
    while (at < bytes) {
        const int found = match_at(run, stage, text, bytes, at);
        const size_t start = match[0], end = match[1];

        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found == PCRE2_ERROR_NOMEMORY || found == PCRE2_ERROR_HEAPLIMIT)
            return TCA_ERR_NO_MEMORY;
        if (found < 0)
            return TCA_ERR_UNSUPPORTED;
        if (start > done)
            TCA_TRY(split(run, stage + 1, text + done, start - done));
        if (end > start)
            TCA_TRY(split(run, stage + 1, text + start, end - start));
        done = end;
        at = end > start ? end : end + utf8_character_bytes(text + end, bytes - end);
    }
    return done == bytes ? TCA_OK : split(run, stage + 1, text + done, bytes - done);
}

enum tca_status pre_tokenizer_split(struct pre_tokenizer_run *run, const char *text, size_t bytes,
                                    pre_token_fn take, void *context)
{
    run->take = take;
    run->context = context;
    return bytes == 0 ? TCA_OK : split(run, 0, text, bytes);
}
