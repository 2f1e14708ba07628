#include "worker/step_plan.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Wire form: header {magic u32, end u32, number u64, top_count u32, closes u32, opens u32,
 * items u32, tokens u32}, then closes {slot u32}, opens {slot u32, base u32, capacity u64,
 * base_tokens u64, rule u32, redundancy u32, flags u32, keep f64, tau f64, core u64, dense_below
 * u64}, items {slot u32, tokens u32, own_rows u64, logits u32, selects u32}, token ids u32. */
static const uint32_t step_magic = 0x50414354; /* "TCAP" */

enum tca_status step_plan_init(struct step_plan *plan, const struct step_limits *limits)
{
    *plan = (struct step_plan){.limits = *limits};
    plan->item = calloc((size_t)limits->items, sizeof(*plan->item));
    plan->token = calloc((size_t)limits->tokens, sizeof(*plan->token));
    if (plan->item == NULL || plan->token == NULL) {
        step_plan_deinit(plan);
        return TCA_ERR_NO_MEMORY;
    }
    step_plan_clear(plan, 0);
    return TCA_OK;
}

void step_plan_deinit(struct step_plan *plan)
{
    free(plan->item);
    free(plan->token);
    *plan = (struct step_plan){0};
}

void step_plan_clear(struct step_plan *plan, uint64_t number)
{
    plan->number = number;
    plan->end = STEP_END_NONE;
    plan->top_count = 1;
    plan->closes = 0;
    plan->opens = 0;
    plan->items = 0;
    plan->tokens = 0;
}

enum tca_status step_plan_add_close(struct step_plan *plan, int32_t slot)
{
    if (plan->closes == STEP_CLOSES_MAX)
        return TCA_ERR_BUSY;
    plan->close[plan->closes++] = slot;
    return TCA_OK;
}

enum tca_status step_plan_add_open(struct step_plan *plan, const struct step_open *open)
{
    if (plan->opens == STEP_OPENS_MAX)
        return TCA_ERR_BUSY;
    plan->open[plan->opens++] = *open;
    return TCA_OK;
}

enum tca_status step_plan_add_item(struct step_plan *plan, const struct step_item *item,
                                   const int32_t *ids)
{
    if (plan->items == plan->limits.items || item->tokens > plan->limits.tokens - plan->tokens)
        return TCA_ERR_BUSY;
    memcpy(plan->token + plan->tokens, ids, (size_t)item->tokens * sizeof(*ids));
    plan->tokens += item->tokens;
    plan->item[plan->items++] = *item;
    return TCA_OK;
}

/* Space was reserved by the caller. */
static void put_u32(struct bytes *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out->data[out->size++] = (uint8_t)(value >> (8 * i));
}

static void put_u64(struct bytes *out, uint64_t value)
{
    put_u32(out, (uint32_t)value);
    put_u32(out, (uint32_t)(value >> 32));
}

enum { HEADER_BYTES = 36, CLOSE_BYTES = 4, OPEN_BYTES = 68, ITEM_BYTES = 24, TOKEN_BYTES = 4 };

enum { OPEN_OBSERVES_LAST = 1, OPEN_BASE_LEAVES = 2, OPEN_REPORTS = 4, OPEN_FLAGS_END = 8 };

static void put_f64(struct bytes *out, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    put_u64(out, bits);
}

static void put_open(struct bytes *out, const struct step_open *open)
{
    const struct sparsity *sparsity = &open->sparsity;

    put_u32(out, (uint32_t)open->slot);
    put_u32(out, (uint32_t)open->base_slot);
    put_u64(out, (uint64_t)open->capacity);
    put_u64(out, (uint64_t)open->base_tokens);
    put_u32(out, (uint32_t)sparsity->method.rule);
    put_u32(out, (uint32_t)sparsity->method.redundancy);
    put_u32(out, (sparsity->method.observes_last ? OPEN_OBSERVES_LAST : 0U) |
                     (open->is_base_leaving ? OPEN_BASE_LEAVES : 0U) |
                     (open->reports_selection ? OPEN_REPORTS : 0U));
    put_f64(out, sparsity->keep);
    put_f64(out, sparsity->tau);
    put_u64(out, (uint64_t)sparsity->core_tokens);
    put_u64(out, (uint64_t)sparsity->dense_below_tokens);
}

enum tca_status step_plan_write(const struct step_plan *plan, struct bytes *out)
{
    size_t size = HEADER_BYTES + (size_t)plan->closes * CLOSE_BYTES +
                  (size_t)plan->opens * OPEN_BYTES + (size_t)plan->items * ITEM_BYTES +
                  (size_t)plan->tokens * TOKEN_BYTES;

    TCA_TRY(bytes_reserve(out, out->size + size));
    put_u32(out, step_magic);
    put_u32(out, (uint32_t)plan->end);
    put_u64(out, plan->number);
    put_u32(out, (uint32_t)plan->top_count);
    put_u32(out, (uint32_t)plan->closes);
    put_u32(out, (uint32_t)plan->opens);
    put_u32(out, (uint32_t)plan->items);
    put_u32(out, (uint32_t)plan->tokens);
    for (int i = 0; i < plan->closes; i++)
        put_u32(out, (uint32_t)plan->close[i]);
    for (int i = 0; i < plan->opens; i++)
        put_open(out, &plan->open[i]);
    for (int i = 0; i < plan->items; i++) {
        put_u32(out, (uint32_t)plan->item[i].slot);
        put_u32(out, (uint32_t)plan->item[i].tokens);
        put_u64(out, (uint64_t)plan->item[i].own_rows);
        put_u32(out, (uint32_t)plan->item[i].logits);
        put_u32(out, plan->item[i].selects);
    }
    for (int i = 0; i < plan->tokens; i++)
        put_u32(out, (uint32_t)plan->token[i]);
    return TCA_OK;
}

struct reader {
    const uint8_t *data;
    size_t left;
};

/* The size was checked by the caller. */
static uint32_t get_u32(struct reader *reader)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++)
        value |= (uint32_t)reader->data[i] << (8 * i);
    reader->data += 4;
    reader->left -= 4;
    return value;
}

static uint64_t get_u64(struct reader *reader)
{
    uint64_t low = get_u32(reader);

    return low | (uint64_t)get_u32(reader) << 32;
}

static double get_f64(struct reader *reader)
{
    uint64_t bits = get_u64(reader);
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static bool is_slot(int32_t slot)
{
    return slot >= 0 && slot < STEP_SLOTS_MAX;
}

/* Header and counts; what is left must be exactly the arrays they announce. */
static enum tca_status read_header(struct step_plan *plan, struct reader *reader,
                                   struct tca_error *error)
{
    uint32_t end, top_count, closes, opens, items, tokens;
    uint64_t announced;

    if (reader->left < HEADER_BYTES || get_u32(reader) != step_magic)
        return tca_fail(error, TCA_ERR_INVALID, "step plan: no header");
    end = get_u32(reader);
    plan->number = get_u64(reader);
    top_count = get_u32(reader);
    closes = get_u32(reader);
    opens = get_u32(reader);
    items = get_u32(reader);
    tokens = get_u32(reader);
    if (end > STEP_END_FAILURE || top_count < 1 || top_count > STEP_TOP_MAX ||
        closes > STEP_CLOSES_MAX || opens > STEP_OPENS_MAX ||
        items > (uint32_t)plan->limits.items || tokens > (uint32_t)plan->limits.tokens)
        return tca_fail(error, TCA_ERR_INVALID,
                        "step plan %llu: %u closes, %u opens, %u items, %u tokens, %u candidates, "
                        "end %u: beyond the limits",
                        (unsigned long long)plan->number, closes, opens, items, tokens, top_count,
                        end);
    announced = (uint64_t)closes * CLOSE_BYTES + (uint64_t)opens * OPEN_BYTES +
                (uint64_t)items * ITEM_BYTES + (uint64_t)tokens * TOKEN_BYTES;
    if (announced != reader->left)
        return tca_fail(error, TCA_ERR_INVALID, "step plan %llu: %zu bytes follow, not %llu",
                        (unsigned long long)plan->number, reader->left,
                        (unsigned long long)announced);
    plan->end = (enum step_end)end;
    plan->top_count = (int32_t)top_count;
    plan->closes = (int32_t)closes;
    plan->opens = (int32_t)opens;
    plan->items = (int32_t)items;
    plan->tokens = (int32_t)tokens;
    return TCA_OK;
}

static enum tca_status read_sparsity(struct reader *reader, struct step_open *open,
                                     struct tca_error *error)
{
    struct sparsity *sparsity = &open->sparsity;
    const uint32_t rule = get_u32(reader), redundancy = get_u32(reader), flags = get_u32(reader);

    *sparsity = (struct sparsity){.method = {.rule = (enum select_rule)rule,
                                             .redundancy = (enum select_redundancy)redundancy,
                                             .observes_last = (flags & OPEN_OBSERVES_LAST) != 0}};
    open->is_base_leaving = (flags & OPEN_BASE_LEAVES) != 0;
    open->reports_selection = (flags & OPEN_REPORTS) != 0;
    sparsity->keep = get_f64(reader);
    sparsity->tau = get_f64(reader);
    sparsity->core_tokens = (int64_t)get_u64(reader);
    sparsity->dense_below_tokens = (int64_t)get_u64(reader);
    if (rule >= SELECT_RULE_COUNT || redundancy > SELECT_REDUNDANCY_MASS ||
        flags >= OPEN_FLAGS_END || !(sparsity->keep >= 0.0 && sparsity->keep <= 1.0) ||
        !(sparsity->tau >= 0.0 && sparsity->tau <= 1.0) || sparsity->core_tokens < 0 ||
        sparsity->dense_below_tokens < 0)
        return tca_fail(error, TCA_ERR_INVALID,
                        "step plan: opens slot %d with rule %u, redundancy %u, flags %u, keep %g, "
                        "tau %g",
                        open->slot, rule, redundancy, flags, sparsity->keep, sparsity->tau);
    return TCA_OK;
}

static enum tca_status read_sequences(struct step_plan *plan, struct reader *reader,
                                      struct tca_error *error)
{
    for (int i = 0; i < plan->closes; i++) {
        plan->close[i] = (int32_t)get_u32(reader);
        if (!is_slot(plan->close[i]))
            return tca_fail(error, TCA_ERR_INVALID, "step plan: closes slot %d", plan->close[i]);
    }
    for (int i = 0; i < plan->opens; i++) {
        struct step_open *open = &plan->open[i];

        open->slot = (int32_t)get_u32(reader);
        open->base_slot = (int32_t)get_u32(reader);
        open->capacity = (int64_t)get_u64(reader);
        open->base_tokens = (int64_t)get_u64(reader);
        TCA_TRY(read_sparsity(reader, open, error));
        if (!is_slot(open->slot) || open->capacity < 1 || open->base_tokens < 0 ||
            open->base_tokens > INT32_MAX ||
            (open->base_slot != STEP_SLOT_NONE && !is_slot(open->base_slot)))
            return tca_fail(error, TCA_ERR_INVALID,
                            "step plan: opens slot %d over slot %d for %lld tokens", open->slot,
                            open->base_slot, (long long)open->capacity);
    }
    return TCA_OK;
}

static enum tca_status read_items(struct step_plan *plan, struct reader *reader,
                                  struct tca_error *error)
{
    int64_t tokens = 0;

    for (int i = 0; i < plan->items; i++) {
        struct step_item *item = &plan->item[i];
        uint32_t logits, selects;

        item->slot = (int32_t)get_u32(reader);
        item->tokens = (int32_t)get_u32(reader);
        item->own_rows = (int64_t)get_u64(reader);
        logits = get_u32(reader);
        selects = get_u32(reader);
        if (!is_slot(item->slot) || item->tokens < 1 || item->own_rows < 0 ||
            logits > STEP_LOGITS_ALL || selects > 1)
            return tca_fail(error, TCA_ERR_INVALID,
                            "step plan: runs %d tokens of slot %d after %lld, logits %u, "
                            "selects %u",
                            item->tokens, item->slot, (long long)item->own_rows, logits, selects);
        item->logits = (enum step_logits)logits;
        item->selects = selects != 0;
        tokens += item->tokens;
    }
    if (tokens != plan->tokens)
        return tca_fail(error, TCA_ERR_INVALID, "step plan: items name %lld of %d tokens",
                        (long long)tokens, plan->tokens);
    for (int i = 0; i < plan->tokens; i++)
        plan->token[i] = (int32_t)get_u32(reader);
    return TCA_OK;
}

enum tca_status step_plan_read(struct step_plan *plan, const void *data, size_t size,
                               struct tca_error *error)
{
    struct reader reader = {.data = data, .left = size};
    enum tca_status status;

    step_plan_clear(plan, 0);
    status = read_header(plan, &reader, error);
    if (status == TCA_OK)
        status = read_sequences(plan, &reader, error);
    if (status == TCA_OK)
        status = read_items(plan, &reader, error);
    if (status != TCA_OK)
        step_plan_clear(plan, 0);
    return status;
}
