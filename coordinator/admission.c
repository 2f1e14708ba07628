#include "coordinator/admission.h"

#include "model/shard_plan.h"

#include <inttypes.h>
#include <math.h>

/* The least budget of a rule, beside its window: the first block, and what it may choose. The
 * workers' kernels/select.h has the same. */
enum { SINK_TOKENS = 64, LEAST_FREE_TOKENS = 512 };

/* With tau a question may take a 4th of the pool for its core cache. */
enum { TAU_POOL_PART = 4 };

int64_t admission_round(int64_t tokens)
{
    return (tokens + ADMISSION_GRAIN_TOKENS - 1) / ADMISSION_GRAIN_TOKENS * ADMISSION_GRAIN_TOKENS;
}

int64_t admission_sequence_tokens(const struct admission *admission, int64_t tokens)
{
    return shard_plan_kv_tokens(admission->kv_heads, admission->ranks, admission_round(tokens));
}

static int64_t round_down(int64_t tokens)
{
    return tokens / ADMISSION_GRAIN_TOKENS * ADMISSION_GRAIN_TOKENS;
}

void admission_init(struct admission *admission, int64_t capacity_tokens, double question_share)
{
    const int64_t capacity = round_down(capacity_tokens);

    admission->question_pool = round_down((int64_t)((double)capacity * question_share));
    admission->document_pool = capacity - admission->question_pool;
}

static bool can_leave(const struct document *document)
{
    return document->state == DOCUMENT_READY && document->questions == document->held_questions &&
           !document->is_pinned;
}

/* The next to leave: the one whose last use is the longest ago, among those not yet chosen. */
static struct document *least_recently_used(struct document *const *table, size_t documents,
                                            struct document *const *chosen, size_t count)
{
    struct document *oldest = NULL;

    for (size_t i = 0; i < documents; i++) {
        bool is_chosen = false;

        if (!can_leave(table[i]))
            continue;
        for (size_t c = 0; c < count; c++)
            is_chosen |= chosen[c] == table[i];
        if (!is_chosen && (oldest == NULL || table[i]->last_used_ms < oldest->last_used_ms))
            oldest = table[i];
    }
    return oldest;
}

/* KV that no other document can ever push out. What is being deleted, or has failed, leaves by
 * itself. */
static int64_t pinned_tokens(struct document *const *table, size_t documents)
{
    int64_t tokens = 0;

    for (size_t i = 0; i < documents; i++)
        if (table[i]->is_pinned &&
            (table[i]->state == DOCUMENT_PREFILLING || table[i]->state == DOCUMENT_READY))
            tokens += table[i]->kv_tokens;
    return tokens;
}

enum admission_answer admission_document(const struct admission *admission, int64_t tokens,
                                         struct document *const *table, size_t documents,
                                         struct document **victims_out, size_t *count_out,
                                         struct tca_error *error)
{
    const int64_t wanted = admission_sequence_tokens(admission, tokens);
    int64_t free = admission->document_pool - admission->document_used;

    *count_out = 0;
    if (tokens > admission->max_tokens) {
        tca_fail(error, TCA_ERR_RANGE,
                 "the document has %" PRId64 " tokens, the longest sequence has %" PRId64, tokens,
                 admission->max_tokens);
        return ADMISSION_NEVER;
    }
    if (wanted > admission->document_pool) {
        tca_fail(error, TCA_ERR_RANGE,
                 "the document needs %" PRId64 " tokens of KV memory, all documents together have "
                 "%" PRId64,
                 wanted, admission->document_pool);
        return ADMISSION_NEVER;
    }
    if (wanted <= free)
        return ADMISSION_NOW;
    if (admission->policy == ADMISSION_REFUSE ||
        wanted > admission->document_pool - pinned_tokens(table, documents)) {
        if (admission->policy == ADMISSION_REFUSE && wanted <= free + admission->document_closing)
            return ADMISSION_WAIT;
        tca_fail(error, TCA_ERR_BUSY,
                 "the document needs %" PRId64 " tokens of KV memory, %" PRId64 " of %" PRId64
                 " are free and %s",
                 wanted, free, admission->document_pool,
                 admission->policy == ADMISSION_REFUSE ? "no document makes room (kv-policy refuse)"
                                                       : "pinned documents do not make room");
        return ADMISSION_FULL;
    }
    free += admission->document_closing;
    while (free < wanted) {
        struct document *victim = least_recently_used(table, documents, victims_out, *count_out);

        if (victim == NULL)
            break; /* the rest is busy: what can leave now makes no room yet */
        victims_out[(*count_out)++] = victim;
        free += victim->kv_tokens;
    }
    if (free < wanted)
        *count_out = 0;
    return *count_out > 0 ? ADMISSION_EVICT : ADMISSION_WAIT;
}

void admission_take_document(struct admission *admission, int64_t kv_tokens)
{
    admission->document_used += kv_tokens;
}

void admission_close_document(struct admission *admission, int64_t kv_tokens)
{
    admission->document_closing += kv_tokens;
}

void admission_free_document(struct admission *admission, int64_t kv_tokens)
{
    admission->document_closing -= kv_tokens;
    admission->document_used -= kv_tokens;
    admission->frees++;
}

void admission_refuse_document(struct admission *admission, int64_t kv_tokens)
{
    admission->document_used -= kv_tokens;
}

int64_t admission_core_tokens(const struct admission *admission, const struct attention *attention,
                              int64_t tokens)
{
    const int64_t least = SINK_TOKENS + admission->window_tokens + LEAST_FREE_TOKENS;
    const int64_t most = attention->evicts ? tokens : (tokens + 1) / 2;
    int64_t core;

    if (attention->rule == NULL)
        return 0;
    core = (int64_t)ceil(attention->keep * (double)tokens);
    if (attention->tau > 0.0)
        core = 2 * core > admission->question_pool / TAU_POOL_PART
                   ? 2 * core
                   : admission->question_pool / TAU_POOL_PART;
    if (core < least)
        core = least;
    return core < most ? core : most;
}

int64_t admission_question_tokens(const struct admission *admission, bool evicts,
                                  int64_t question_tokens, int64_t answer_tokens,
                                  int64_t core_tokens)
{
    /* Any stripe may hold all that is kept. */
    const int stripes = shard_plan_stripes(admission->kv_heads, admission->ranks);

    return admission_sequence_tokens(admission, question_tokens + answer_tokens) +
           stripes * admission_round(core_tokens) +
           (evicts ? admission_sequence_tokens(admission, answer_tokens) : 0);
}

int64_t admission_answer_tokens(const struct admission *admission, bool evicts,
                                int64_t question_tokens, int64_t core_tokens)
{
    /* Whole grains, after what the question leaves of its last one. */
    const int64_t first = evicts ? 0 : admission_round(question_tokens) - question_tokens;
    int64_t fits = -1, over = admission->question_pool / ADMISSION_GRAIN_TOKENS + 1;

    while (over - fits > 1) {
        const int64_t grains = fits + (over - fits) / 2;

        if (admission_question_tokens(admission, evicts, question_tokens,
                                      first + grains * ADMISSION_GRAIN_TOKENS,
                                      core_tokens) <= admission->question_pool)
            fits = grains;
        else
            over = grains;
    }
    return fits < 0 ? 0 : first + fits * ADMISSION_GRAIN_TOKENS;
}

bool admission_question(const struct admission *admission, int64_t kv_tokens)
{
    return admission->running < admission->max_running &&
           kv_tokens <= admission->question_pool - admission->question_used;
}

void admission_take_question(struct admission *admission, int64_t kv_tokens)
{
    admission->question_used += kv_tokens;
    admission->running++;
}

void admission_shrink_question(struct admission *admission, int64_t kv_tokens)
{
    admission->question_used -= kv_tokens;
    admission->frees++;
}

void admission_refuse_question(struct admission *admission, int64_t kv_tokens)
{
    admission->question_used -= kv_tokens;
    admission->running--;
}

void admission_give_back_question(struct admission *admission, int64_t kv_tokens)
{
    admission_refuse_question(admission, kv_tokens);
    admission->frees++;
}

bool admission_is_idle(const struct admission *admission)
{
    return admission->running == 0 && admission->document_closing == 0;
}

bool admission_may_retry(const struct admission *admission, uint64_t retry_at)
{
    return admission->frees >= retry_at || admission_is_idle(admission);
}
