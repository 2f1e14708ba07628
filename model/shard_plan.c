#include "model/shard_plan.h"

enum { SPLIT_UNIT = 16 };

/* The first of `kv_heads` that belongs to `rank`; rank == ranks: the end. */
static int head_first(int kv_heads, int rank, int ranks)
{
    int extra = kv_heads % ranks;

    return kv_heads / ranks * rank + (rank < extra ? rank : extra);
}

/* Where `total` columns are cut after `heads` of `all_heads`: whole units, the remainder at the
 * end. */
static int cut(int total, int heads, int all_heads)
{
    if (heads == all_heads)
        return total;
    return (int)((int64_t)(total / SPLIT_UNIT) * heads / all_heads) * SPLIT_UNIT;
}

int shard_plan_ffn_first(const struct model_config *config, int kv_head)
{
    return cut(config->ffn, kv_head, config->kv_heads);
}

enum tca_status shard_plan_make(const struct model_config *config, int rank, int ranks,
                                struct shard *shard_out, struct tca_error *error)
{
    const int heads = config->kv_heads;
    const int group = config->q_heads / heads;
    int first, end;

    if (rank < 0 || rank >= ranks)
        return tca_fail(error, TCA_ERR_INVALID, "rank %d, allowed: 0 to %d", rank, ranks - 1);
    if (ranks > heads)
        return tca_fail(error, TCA_ERR_UNSUPPORTED,
                        "%d workers, but the model has %d KV heads to share: allowed are 1 to %d "
                        "workers",
                        ranks, heads, heads);
    if (ranks > 1 && (config->ffn < SPLIT_UNIT * heads || config->vocab < SPLIT_UNIT * heads))
        return tca_fail(error, TCA_ERR_UNSUPPORTED,
                        "%d workers cannot share %d FFN columns and %d tokens: several workers "
                        "need %d of each for each of %d KV heads",
                        ranks, config->ffn, config->vocab, SPLIT_UNIT, heads);
    first = head_first(heads, rank, ranks);
    end = head_first(heads, rank + 1, ranks);
    *shard_out = (struct shard){
        .kv_head_first = first,
        .kv_heads = end - first,
        .q_head_first = first * group,
        .q_heads = (end - first) * group,
        .ffn_first = cut(config->ffn, first, heads),
        .ffn = cut(config->ffn, end, heads) - cut(config->ffn, first, heads),
        .vocab_first = cut(config->vocab, first, heads),
        .vocab = cut(config->vocab, end, heads) - cut(config->vocab, first, heads),
    };
    return TCA_OK;
}
