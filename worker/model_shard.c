#include "worker/model_shard.h"

#include "base/log.h"
#include "model/weight_files.h"
#include "worker/forward.h"
#include "worker/kv_cache.h"
#include "worker/lockstep.h"
#include "worker/sequence.h"
#include "worker/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOGIT_ROWS_LEAST = 16,
    PREFILL_ITEMS = 64, /* sequences beside the decoding ones */
    DEFAULT_WINDOW = 1024,
    PROFILE_PATH_BYTES = 4096 + 32,
};

_Static_assert((int)SHARD_RANKS_MAX <= (int)COMM_RANKS_MAX, "a plan has more ranks than a group");
_Static_assert((int)MODEL_POSITIONS_MAX <= (int)SELECT_TOKENS_MAX,
               "a sequence has more tokens than are selected from");

struct model_shard {
    struct device device;
    struct comm_group *group;
    struct comm_group *peers; /* owned: who shares this rank's KV head; NULL: nobody */
    struct model_config config;
    struct model_shard_facts facts;
    struct step_limits limits;
    struct weights *weights;
    struct kv_cache kv;
    struct forward *forward;
    struct logits *logits;
    int logit_rows;
    struct sequence *sequence; /* owned [sequences] */
    int sequences;
    struct sequence_host host;
    struct profile *profile;        /* owned, or NULL */
    int kv_heads[COMM_RANKS_MAX];   /* of every rank; of those that share one, the first has it */
    struct forward_item *items;     /* owned [limits.items] */
    struct step_selected *selected; /* owned [limits.items] */
    int selections;
    int timeout_ms;
    int32_t *wanted_token; /* owned [limits.tokens]: tokens whose logits rank 0 wants */
    int32_t *wanted_item;  /* owned [limits.tokens] */
};

static int64_t window_of(const struct model_shard_options *options)
{
    return options->window_tokens == 0 ? DEFAULT_WINDOW : options->window_tokens;
}

static enum tca_status load_weights(struct model_shard *shard,
                                    const struct model_shard_options *options,
                                    struct tca_error *error)
{
    struct weight_files *files = NULL;
    enum tca_status status = TCA_OK;

    if (options->has_dummy_weights) {
        snprintf(shard->facts.fingerprint, sizeof(shard->facts.fingerprint), "dummy");
    } else {
        TCA_TRY(weight_files_open(options->model_folder, &files, error));
        status = weight_files_fingerprint(files, shard->facts.fingerprint);
        if (status != TCA_OK)
            tca_fail(error, status, "%s: fingerprint: %s", options->model_folder,
                     tca_status_text(status));
    }
    if (status == TCA_OK)
        status = weights_create(&shard->device, &shard->config, &shard->facts.shard, files,
                                &shard->weights, error);
    weight_files_close(files);
    if (status == TCA_OK)
        shard->facts.weight_bytes = shard->weights->bytes;
    return status;
}

/* After weights and workspace: what is left is for keys and values. */
static enum tca_status reserve_kv(struct model_shard *shard,
                                  const struct model_shard_options *options,
                                  struct tca_error *error)
{
    struct kv_shape shape = {.layers = shard->config.layers,
                             .kv_heads = shard->facts.shard.kv_heads,
                             .head_dim = shard->config.head_dim};
    const int64_t token_bytes =
        (int64_t)(kv_cache_range_bytes(&shape, KV_CACHE_GRANULE) / KV_CACHE_GRANULE);
    const int stripes = shard->facts.shard.stripes;
    size_t budget_bytes = options->kv_memory_bytes;
    enum tca_status status;
    size_t free_bytes, share;

    status =
        shard->device.backend->memory(shard->device.index, &shard->facts.memory_bytes, &free_bytes);
    if (status != TCA_OK)
        return tca_fail(error, status, "device memory: %s", tca_status_text(status));
    share = free_bytes / (size_t)options->ranks_on_device;
    if (budget_bytes > share)
        return tca_fail(error, TCA_ERR_NO_MEMORY,
                        "kv-memory: %zu bytes, allowed: up to %zu, a worker's share of the %zu "
                        "that are free beside the weights",
                        budget_bytes, share, free_bytes);
    if (budget_bytes == 0)
        budget_bytes = share / 2;
    kv_cache_init(&shard->kv, &shard->device, &shape, budget_bytes);
    shard->facts.kv_bytes = budget_bytes;
    shard->facts.kv_capacity_tokens = kv_cache_capacity(&shard->kv) * stripes;
    shard->facts.kv_bytes_per_token = token_bytes / stripes;
    if (shard->facts.kv_capacity_tokens == 0)
        return tca_fail(error, TCA_ERR_NO_MEMORY,
                        "KV memory: %zu bytes do not hold %d tokens of %lld bytes", budget_bytes,
                        KV_CACHE_GRANULE, (long long)token_bytes);
    return TCA_OK;
}

/* By the products of queries with keys and of weights with values, 2 operations each a value of a
 * head. */
static int64_t step_key_reads_of(const struct model_shard *shard,
                                 const struct kernel_backend *backend)
{
    const double values =
        (double)shard->config.layers * shard->facts.shard.q_heads * (double)shard->config.head_dim;

    return 1 + (int64_t)(backend->step_flops / (4 * values));
}

static enum tca_status create_pass(struct model_shard *shard,
                                   const struct model_shard_options *options,
                                   struct tca_error *error)
{
    struct forward_parts parts = {.device = shard->device,
                                  .group = shard->group,
                                  .peers = shard->peers,
                                  .config = &shard->config,
                                  .shard = &shard->facts.shard,
                                  .weights = shard->weights};
    struct forward_limits limits = {.rows = shard->limits.tokens,
                                    .items = shard->limits.items,
                                    .logit_rows = shard->logit_rows,
                                    .chunk_rows = options->chunk_tokens,
                                    .positions =
                                        options->max_positions > 0 &&
                                                options->max_positions < shard->config.max_positions
                                            ? options->max_positions
                                            : shard->config.max_positions};

    shard->facts.step_key_reads = step_key_reads_of(shard, options->backend);
    shard->facts.workspace_bytes = forward_workspace_bytes(&parts, &limits);
    TCA_TRY(forward_create(&parts, &limits, &shard->forward, error));
    return logits_create(&shard->device, shard->group, &shard->config, shard->logit_rows,
                         STEP_TOP_MAX, options->timeout_ms, &shard->logits, error);
}

static enum tca_status create_lists(struct model_shard *shard, struct tca_error *error)
{
    shard->items = calloc((size_t)shard->limits.items, sizeof(*shard->items));
    shard->selected = calloc((size_t)shard->limits.items, sizeof(*shard->selected));
    shard->wanted_token = calloc((size_t)shard->limits.tokens, sizeof(*shard->wanted_token));
    shard->wanted_item = calloc((size_t)shard->limits.tokens, sizeof(*shard->wanted_item));
    if (shard->items == NULL || shard->selected == NULL || shard->wanted_token == NULL ||
        shard->wanted_item == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a step's lists");
    return TCA_OK;
}

/* The file that was named, or that of the model's folder where there is one. Made-up weights have
 * no profile of their own. */
static enum tca_status open_profile(struct model_shard *shard,
                                    const struct model_shard_options *options,
                                    struct tca_error *error)
{
    const bool is_named = options->profile != NULL && options->profile[0] != '\0';
    char path[PROFILE_PATH_BYTES];
    enum tca_status status;

    if ((!is_named && options->has_dummy_weights) ||
        (is_named && strcmp(options->profile, "none") == 0))
        return TCA_OK;
    if (is_named)
        snprintf(path, sizeof(path), "%s", options->profile);
    else
        snprintf(path, sizeof(path), "%s/tca-profile.json", options->model_folder);
    status = profile_open(path, shard->facts.fingerprint, shard->config.layers,
                          shard->config.kv_heads, &shard->profile, error);
    if (status == TCA_ERR_NOT_FOUND && !is_named)
        return TCA_OK;
    TCA_TRY(status);
    if (shard->group->rank == 0 && shard->profile->window_tokens != window_of(options))
        log_warn("%s: made with a window of %lld tokens, this server's is %lld", path,
                 (long long)shard->profile->window_tokens, (long long)window_of(options));
    memcpy(shard->facts.profile_id, shard->profile->id, sizeof(shard->facts.profile_id));
    shard->facts.has_tca_profile = shard->profile->tca != NULL;
    return TCA_OK;
}

static struct budget_source budget_source_of(const struct model_shard *shard,
                                             const struct model_shard_options *options)
{
    return (struct budget_source){.profile = shard->profile,
                                  .layers = shard->config.layers,
                                  .all_kv_heads = shard->config.kv_heads,
                                  .kv_head_first = shard->facts.shard.kv_head_first,
                                  .kv_heads = shard->facts.shard.kv_heads,
                                  .window = window_of(options)};
}

/* Tell the group how many KV heads' sums each rank brings. */
static enum tca_status order_sums(struct model_shard *shard, struct tca_error *error)
{
    for (int rank = 0; rank < shard->group->ranks; rank++) {
        struct shard other;

        TCA_TRY(shard_plan_make(&shard->config, rank, shard->group->ranks, &other, error));
        shard->group->parts[rank] = other.kv_heads;
        shard->kv_heads[rank] = other.stripe == 0 ? other.kv_heads : 0;
    }
    return TCA_OK;
}

/* What this rank holds, and with whom. Before anything that may fail on one rank alone: the others
 * wait for it in the split. */
static enum tca_status find_place(struct model_shard *shard,
                                  const struct model_shard_options *options,
                                  struct tca_error *error)
{
    struct comm_group *group = shard->group;
    struct shard *place = &shard->facts.shard;
    enum tca_status status;

    TCA_TRY(shard_plan_make(&shard->config, group->rank, group->ranks, place, error));
    if (options->stripe_unit != 0)
        place->stripe_unit = options->stripe_unit;
    if (place->stripe_unit < 1 || place->stripe_unit % KV_CACHE_GRANULE != 0)
        return tca_fail(error, TCA_ERR_INVALID, "stripe unit %d, allowed: multiples of %d",
                        place->stripe_unit, KV_CACHE_GRANULE);
    if (group->ranks <= shard->config.kv_heads)
        return TCA_OK;
    if (options->backend->attention_merge == NULL || options->backend->pick == NULL)
        return tca_fail(error, TCA_ERR_UNSUPPORTED,
                        "%d workers, but on device %s no two share one of the model's %d KV heads",
                        group->ranks, options->backend->name, shard->config.kv_heads);
    status = group->ops->split(group, place->peer_first, place->stripes, &shard->peers);
    if (status != TCA_OK)
        return tca_fail(error, status, "a group of %d ranks from %d: %s", place->stripes,
                        place->peer_first, tca_status_text(status));
    if (place->stripes == 1) {
        shard->peers->ops->destroy(shard->peers);
        shard->peers = NULL;
    }
    return TCA_OK;
}

/* The same on all ranks, or a failure on all: what follows is collective. */
static enum tca_status read_config(struct model_shard *shard,
                                   const struct model_shard_options *options,
                                   struct tca_error *error)
{
    const enum tca_status own = model_config_read(options->model_folder, &shard->config, error);
    const enum tca_status status = lockstep_agree(shard->group, own, options->timeout_ms);

    if (own == TCA_OK && status != TCA_OK)
        return tca_fail(error, status, "reading the model's config on all ranks: %s",
                        tca_status_text(status));
    TCA_TRY(status);
    if (options->has_dummy_weights && options->max_positions > 0 &&
        options->max_positions <= MODEL_POSITIONS_MAX)
        shard->config.max_positions = (int)options->max_positions;
    return TCA_OK;
}

static enum tca_status create_parts(struct model_shard *shard,
                                    const struct model_shard_options *options,
                                    struct tca_error *error)
{
    enum tca_status status;

    TCA_TRY(read_config(shard, options, error));
    TCA_TRY(find_place(shard, options, error));
    TCA_TRY(order_sums(shard, error));
    status =
        options->backend->queue_create(options->device, options->threads, &shard->device.queue);
    if (status != TCA_OK)
        return tca_fail(error, status, "device %s %d: %s", options->backend->name, options->device,
                        tca_status_text(status));
    TCA_TRY(load_weights(shard, options, error));
    TCA_TRY(create_lists(shard, error));
    TCA_TRY(open_profile(shard, options, error));
    TCA_TRY(create_pass(shard, options, error));
    TCA_TRY(reserve_kv(shard, options, error));
    shard->host = (struct sequence_host){.kv = &shard->kv,
                                         .source = budget_source_of(shard, options),
                                         .shard = &shard->facts.shard,
                                         .chunk_tokens = options->chunk_tokens,
                                         .refresh_every = options->refresh_every};
    return TCA_OK;
}

enum tca_status model_shard_create(const struct model_shard_options *options,
                                   struct comm_group *group, struct model_shard **shard_out,
                                   struct tca_error *error)
{
    struct model_shard *shard = calloc(1, sizeof(*shard));
    enum tca_status status;

    if (shard == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the model");
    shard->device = (struct device){.backend = options->backend, .index = options->device};
    shard->group = group;
    shard->timeout_ms = options->timeout_ms;
    shard->limits = (struct step_limits){.items = options->max_sequences + PREFILL_ITEMS,
                                         .tokens = options->chunk_tokens + options->max_sequences};
    shard->logit_rows =
        options->max_sequences > LOGIT_ROWS_LEAST ? options->max_sequences : LOGIT_ROWS_LEAST;
    status = create_parts(shard, options, error);
    if (status != TCA_OK) {
        model_shard_destroy(shard);
        return status;
    }
    *shard_out = shard;
    return TCA_OK;
}

static void forget_selected(struct model_shard *shard)
{
    for (int i = 0; i < shard->selections; i++)
        free(shard->selected[i].bins);
    shard->selections = 0;
}

void model_shard_destroy(struct model_shard *shard)
{
    if (shard == NULL)
        return;
    for (int slot = 0; slot < shard->sequences; slot++)
        sequence_close(&shard->sequence[slot], &shard->host);
    forget_selected(shard);
    free(shard->sequence);
    free(shard->selected);
    profile_close(shard->profile);
    logits_destroy(shard->logits);
    forward_destroy(shard->forward);
    free(shard->items);
    free(shard->wanted_token);
    free(shard->wanted_item);
    weights_destroy(shard->weights);
    if (shard->device.queue != NULL)
        shard->device.backend->queue_destroy(shard->device.queue);
    if (shard->peers != NULL)
        shard->peers->ops->destroy(shard->peers);
    free(shard);
}

const struct model_config *model_shard_config(const struct model_shard *shard)
{
    return &shard->config;
}

const struct model_shard_facts *model_shard_facts(const struct model_shard *shard)
{
    return &shard->facts;
}

struct step_limits model_shard_limits(const struct model_shard *shard)
{
    return shard->limits;
}

size_t model_shard_used_bytes(const struct model_shard *shard)
{
    return shard->kv.used_bytes;
}

const struct device *model_shard_device(const struct model_shard *shard)
{
    return &shard->device;
}

void model_shard_set_probe(struct model_shard *shard, forward_probe_fn probe, void *context)
{
    forward_set_probe(shard->forward, probe, context);
}

int64_t model_shard_kv_tokens(const struct model_shard *shard, int64_t sequence_tokens,
                              int64_t kept_tokens)
{
    const int kv_heads = shard->config.kv_heads, ranks = shard->group->ranks;

    return shard_plan_kv_tokens(kv_heads, ranks, sequence_tokens) +
           shard_plan_stripes(kv_heads, ranks) * kept_tokens;
}

static struct sequence *find_sequence(struct model_shard *shard, int32_t slot)
{
    if (slot < 0 || slot >= shard->sequences || !shard->sequence[slot].is_open)
        return NULL;
    return &shard->sequence[slot];
}

/* All ranks refuse the same plans, so a refusal here is a bug of rank 0, and ends the group. */
static enum tca_status refuse(const struct model_shard *shard, const struct step_plan *plan,
                              int32_t slot, const char *why)
{
    log_error("rank %d: step %llu: slot %d %s", shard->group->rank,
              (unsigned long long)plan->number, slot, why);
    return TCA_ERR_INVALID;
}

static enum tca_status close_sequences(struct model_shard *shard, const struct step_plan *plan)
{
    for (int i = 0; i < plan->closes; i++) {
        struct sequence *sequence = find_sequence(shard, plan->close[i]);

        if (sequence == NULL)
            return refuse(shard, plan, plan->close[i], "is closed but was not open");
        sequence_close(sequence, &shard->host);
    }
    return TCA_OK;
}

static enum tca_status grow_slots(struct model_shard *shard, int32_t slot)
{
    int grown = shard->sequences < 16 ? 16 : shard->sequences;
    struct sequence *list;

    if (slot < shard->sequences)
        return TCA_OK;
    while (grown <= slot)
        grown *= 2;
    list = realloc(shard->sequence, (size_t)grown * sizeof(*list));
    if (list == NULL)
        return TCA_ERR_NO_MEMORY;
    memset(list + shard->sequences, 0, (size_t)(grown - shard->sequences) * sizeof(*list));
    shard->sequence = list;
    shard->sequences = grown;
    return TCA_OK;
}

/* An open without memory keeps its slot, empty, until rank 0 closes it everywhere. */
static enum tca_status open_sequences(struct model_shard *shard, const struct step_plan *plan,
                                      uint64_t *failed_out)
{
    for (int i = 0; i < plan->opens; i++) {
        const struct step_open *open = &plan->open[i];
        struct sequence *sequence;
        enum tca_status status;

        TCA_TRY(grow_slots(shard, open->slot));
        sequence = &shard->sequence[open->slot];
        if (sequence->is_open)
            return refuse(shard, plan, open->slot, "is opened twice");
        if (open->base_slot != STEP_SLOT_NONE && find_sequence(shard, open->base_slot) == NULL)
            return refuse(shard, plan, open->slot, "is opened over a base that is not open");
        status = sequence_open(sequence, &shard->host, open);
        if (status == TCA_ERR_PRECONDITION)
            return refuse(shard, plan, open->slot, "needs a profile");
        if (status == TCA_ERR_BUSY || status == TCA_ERR_NO_MEMORY)
            *failed_out |= (uint64_t)1 << i;
        else
            TCA_TRY(status); /* the device has failed: waiting would not help */
    }
    return TCA_OK;
}

/* Check the items against this rank's sequences and lay them out for the pass. */
static enum tca_status place_items(struct model_shard *shard, const struct step_plan *plan)
{
    int32_t first = 0;

    for (int i = 0; i < plan->items; i++) {
        const struct step_item *item = &plan->item[i];
        struct sequence *sequence = find_sequence(shard, item->slot);
        const struct sequence *base;

        if (sequence == NULL)
            return refuse(shard, plan, item->slot, "runs but is not open");
        base = find_sequence(shard, sequence->base_slot);
        if (sequence_place(sequence, &shard->host, base, item, &shard->items[i]) != TCA_OK)
            return refuse(shard, plan, item->slot, "runs beyond its rows, or over no base");
        shard->items[i].first_row = first;
        first += item->tokens;
    }
    for (int i = 0; i < plan->tokens; i++)
        if (plan->token[i] < 0 || plan->token[i] >= shard->config.vocab)
            return refuse(shard, plan, plan->token[i], "is no token of the vocabulary");
    return TCA_OK;
}

/* List the tokens whose logits rank 0 wants as candidates, or else as whole rows. */
static int list_wanted(struct model_shard *shard, const struct step_plan *plan, bool is_top)
{
    int wanted = 0;
    int first = 0;

    for (int i = 0; i < plan->items; i++) {
        const struct step_item *item = &plan->item[i];
        int last = first + item->tokens - 1;
        int from = item->logits == STEP_LOGITS_ALL ? first : last;

        first += item->tokens;
        if (item->logits == STEP_LOGITS_NONE || (item->logits == STEP_LOGITS_TOP) != is_top)
            continue;
        for (int token = from; token <= last; token++) {
            shard->wanted_token[wanted] = token;
            shard->wanted_item[wanted++] = i;
        }
    }
    return wanted;
}

static enum tca_status tell_top_rows(struct model_shard *shard, const struct step_plan *plan,
                                     model_shard_row_fn tell, void *context)
{
    int wanted = list_wanted(shard, plan, true);

    for (int first = 0; first < wanted; first += shard->logit_rows) {
        int rows = wanted - first < shard->logit_rows ? wanted - first : shard->logit_rows;
        const float *part;

        TCA_TRY(forward_logits(shard->forward, shard->wanted_token + first, rows, &part));
        TCA_TRY(logits_gather_top(shard->logits, part, rows, plan->top_count));
        for (int row = 0; row < rows && shard->group->rank == 0; row++) {
            struct logits_row found = logits_top_row(shard->logits, row);

            tell(context, shard->wanted_token[first + row], shard->wanted_item[first + row],
                 &found);
        }
    }
    return TCA_OK;
}

static enum tca_status tell_full_rows(struct model_shard *shard, const struct step_plan *plan,
                                      model_shard_row_fn tell, void *context)
{
    int wanted = list_wanted(shard, plan, false);

    for (int first = 0; first < wanted; first += shard->logit_rows) {
        int rows = wanted - first < shard->logit_rows ? wanted - first : shard->logit_rows;
        const float *part;

        TCA_TRY(forward_logits(shard->forward, shard->wanted_token + first, rows, &part));
        for (int row = 0; row < rows; row++) {
            struct logits_row found;

            TCA_TRY(logits_gather_full(shard->logits,
                                       part + (int64_t)row * shard->facts.shard.vocab, &found));
            if (shard->group->rank == 0)
                tell(context, shard->wanted_token[first + row], shard->wanted_item[first + row],
                     &found);
        }
    }
    return TCA_OK;
}

const struct step_selected *model_shard_selected(const struct model_shard *shard, int *count_out)
{
    *count_out = shard->selections;
    return shard->selected;
}

static enum tca_status gather_bins(struct model_shard *shard, const struct sequence *sequence,
                                   struct step_selected *selected)
{
    const struct model_config *config = &shard->config;
    const size_t bins = (size_t)config->layers * (size_t)config->kv_heads * CORE_CACHE_BINS;

    if (shard->group->rank == 0) {
        selected->bins = calloc(bins, sizeof(*selected->bins));
        if (selected->bins == NULL)
            return TCA_ERR_NO_MEMORY;
    }
    return selection_bins_gather(shard->group, sequence->core, &shard->kv.shape,
                                 sequence->base_tokens, shard->kv_heads, selected->bins,
                                 shard->timeout_ms);
}

/* Bring what the step's items selected to rank 0, and let the sequences go on from there. */
static enum tca_status settle_selections(struct model_shard *shard, const struct step_plan *plan)
{
    for (int i = 0; i < plan->items; i++) {
        const struct step_item *item = &plan->item[i];
        struct sequence *sequence = find_sequence(shard, item->slot);
        struct step_selected *selected = &shard->selected[shard->selections];

        sequence_advance(sequence, item);
        if (!item->selects)
            continue;
        *selected = (struct step_selected){.item = i};
        shard->selections++;
        TCA_TRY(selection_report_make(&shard->device, sequence->core, &shard->kv.shape,
                                      &shard->facts.shard, sequence->base_tokens, item->tokens,
                                      &selected->report));
        TCA_TRY(selection_report_gather(shard->group, &selected->report, shard->timeout_ms));
        if (sequence->reports_selection)
            TCA_TRY(gather_bins(shard, sequence, selected));
    }
    return TCA_OK;
}

static uint64_t sent_bytes(const struct model_shard *shard)
{
    return shard->group->sent_bytes + (shard->peers == NULL ? 0 : shard->peers->sent_bytes);
}

enum tca_status model_shard_apply(struct model_shard *shard, const struct step_plan *plan,
                                  model_shard_row_fn row, void *context,
                                  struct step_answer *answer_out)
{
    const uint64_t sent_before = sent_bytes(shard);

    *answer_out = (struct step_answer){.status = TCA_OK};
    forget_selected(shard);
    TCA_TRY(close_sequences(shard, plan));
    TCA_TRY(open_sequences(shard, plan, &answer_out->failed_opens));
    if (plan->items == 0)
        return TCA_OK;
    TCA_TRY(place_items(shard, plan));
    TCA_TRY(forward_run(shard->forward, plan->token, plan->tokens, shard->items, plan->items));
    TCA_TRY(tell_top_rows(shard, plan, row, context));
    TCA_TRY(tell_full_rows(shard, plan, row, context));
    TCA_TRY(settle_selections(shard, plan));
    answer_out->sent_bytes = sent_bytes(shard) - sent_before;
    /* Work may still be under way; its failure belongs to this step. */
    return shard->device.backend->queue_wait(shard->device.queue);
}
