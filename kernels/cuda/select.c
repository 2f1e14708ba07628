/* Selection: budgets and shares, which are the host's, become what every head keeps at most; the
 * kernels (select.cu) read the scores. Heads go in launches of as many as scratch has room for. */
#include "kernels/select.h"

#include "base/log.h"
#include "base/min.h"
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tca_launch.h"

#include <inttypes.h>

_Static_assert(sizeof(struct select_launch) <= 4096, "a kernel's parameters");

enum { ALIGNMENT = 64 };

/* A key and a mark of every token, of one head. */
_Static_assert((int64_t)SELECT_TOKENS_MAX * 4 + SELECT_TOKENS_MAX / 8 + 4 * ALIGNMENT <=
                   SCRATCH_BYTES,
               "scratch holds the longest sequence");

static enum tca_status check_budgets(const struct select_input *input, const int64_t *budgets,
                                     int kv_heads, int64_t kept_stride)
{
    int64_t least = min_i64(input->tokens, SELECT_BLOCK_TOKENS + input->window);

    for (int head = 0; head < kv_heads; head++) {
        int64_t kept = min_i64(input->tokens, budgets[head]);

        if (kept == 0 || (kept >= least && kept <= kept_stride))
            continue;
        log_error("KV head %d: a budget of %" PRId64 " tokens is not in %" PRId64 "..%" PRId64,
                  head, budgets[head], least, kept_stride);
        return TCA_ERR_INVALID;
    }
    return TCA_OK;
}

/* How many blocks, from the most valuable down, keep at least 2^size tokens, where `share` of all
 * do: select.c gives block i that many while i + 0.5 is not above share * blocks. */
static int32_t blocks_of_share(double share, int64_t blocks)
{
    int64_t count = min_i64(blocks, (int64_t)(share * (double)blocks + 0.5));

    while (count < blocks && !((double)count + 0.5 > share * (double)blocks))
        count++;
    while (count > 0 && (double)(count - 1) + 0.5 > share * (double)blocks)
        count--;
    return (int32_t)count;
}

static void plan_tca(struct select_head *head, const float *shares, int64_t blocks)
{
    double share = 0;

    for (int size = SELECT_TCA_SIZES - 1; size > 0; size--) {
        share += (double)shares[size];
        head->tca_ends[size] = blocks_of_share(share, blocks);
    }
    head->tca_ends[0] = (int32_t)blocks;
}

static void plan_head(struct select_head *head, const struct select_launch *launch,
                      const struct select_input *input, int64_t budget)
{
    int64_t sinks = min_i64(SELECT_BLOCK_TOKENS, input->tokens);
    int64_t free_tokens = launch->last_token - sinks;
    int64_t free_budget = budget - (input->tokens - free_tokens);

    *head = (struct select_head){
        .is_empty = budget == 0,
        .is_whole = launch->rule == SELECT_DENSE || budget >= input->tokens,
        .window_first = launch->last_token,
    };
    if (head->is_empty || head->is_whole)
        return;
    if (launch->rule == SELECT_WINDOW)
        head->window_first = (int32_t)(input->tokens - (budget - sinks));
    head->left = (int32_t)free_budget;
    head->largest =
        (int32_t)(launch->rule == SELECT_BLOCK ? free_budget / SELECT_BLOCK_TOKENS : free_budget);
}

static struct select_launch describe(enum select_rule rule, const struct select_input *input)
{
    int64_t sinks = min_i64(SELECT_BLOCK_TOKENS, input->tokens);
    int64_t last = input->tokens - min_i64(input->window, input->tokens);

    if (last < sinks)
        last = sinks;
    return (struct select_launch){.rule = rule,
                                  .redundancy = input->redundancy,
                                  .tokens = (int32_t)input->tokens,
                                  .last_token = (int32_t)last,
                                  .blocks = (int32_t)select_blocks(input->tokens),
                                  .last_block = (int32_t)select_blocks(last)};
}

static size_t rounded(int64_t count)
{
    return ((size_t)count * sizeof(uint32_t) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Keys of every token or block, then marks. Returns how many heads fit. */
static int lay_scratch(struct select_launch *launch, void *scratch)
{
    int64_t keys = launch->rule == SELECT_POOLED ? launch->tokens : launch->blocks;
    size_t key_bytes = rounded(keys);
    size_t mark_bytes = rounded((int64_t)launch->blocks * (SELECT_BLOCK_TOKENS / 32));
    size_t heads = (SCRATCH_BYTES - ALIGNMENT) / (key_bytes + mark_bytes);

    if (heads > SELECT_HEADS_MAX)
        heads = SELECT_HEADS_MAX;
    launch->keys = scratch;
    launch->key_stride = (int64_t)(key_bytes / sizeof(uint32_t));
    launch->marks = launch->keys + (int64_t)heads * launch->key_stride;
    return (int)heads;
}

enum tca_status cuda_select(struct kernel_queue *base, int32_t *kept_out, int64_t kept_stride,
                            int32_t *counts_out, enum select_rule rule,
                            const struct select_input *input, const int64_t *budgets, int kv_heads)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct select_launch launch = describe(rule, input);
    int heads_at_once;

    if (input->tokens > SELECT_TOKENS_MAX) {
        log_error("selecting of %" PRId64 " tokens, allowed: up to %d", input->tokens,
                  SELECT_TOKENS_MAX);
        return TCA_ERR_RANGE;
    }
    TCA_TRY(check_budgets(input, budgets, kv_heads, kept_stride));
    heads_at_once = lay_scratch(&launch, queue->scratch);
    launch.kept_stride = kept_stride;
    for (int first = 0; first < kv_heads; first += launch.heads) {
        launch.heads = kv_heads - first < heads_at_once ? kv_heads - first : heads_at_once;
        for (int i = 0; i < launch.heads; i++) {
            plan_head(&launch.head[i], &launch, input, budgets[first + i]);
            if (rule == SELECT_TCA)
                plan_tca(&launch.head[i],
                         input->tca_shares + (ptrdiff_t)(first + i) * SELECT_TCA_SIZES,
                         launch.last_block - 1);
        }
        if (input->token_scores != NULL)
            launch.token_scores = input->token_scores + first * input->tokens;
        if (input->block_masses != NULL)
            launch.block_masses = input->block_masses + (int64_t)first * launch.blocks;
        launch.kept_out = kept_out + first * kept_stride;
        launch.counts_out = counts_out + first;
        cuda_launch_select(queue->stream, &launch);
        TCA_TRY(cuda_launch_status("select"));
    }
    return TCA_OK;
}
