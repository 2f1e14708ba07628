#include "model/shard_plan.h"

enum { SPLIT_UNIT = 16 };

/* Where things are cut that `parts` share equally, the first ones getting one more: the first of
 * `part`; part == parts: the end. */
static int share_first(int things, int part, int parts)
{
    int extra = things % parts;

    return things / parts * part + (part < extra ? part : extra);
}

/* Which part a thing is in. */
static int share_of(int thing, int things, int parts)
{
    int part = 0;

    while (share_first(things, part + 1, parts) <= thing)
        part++;
    return part;
}

/* Where `total` columns are cut after `shares` of `all_shares`: whole units, the remainder at the
 * end. */
static int cut(int total, int shares, int all_shares)
{
    if (shares == all_shares)
        return total;
    return (int)((int64_t)(total / SPLIT_UNIT) * shares / all_shares) * SPLIT_UNIT;
}

int shard_plan_ffn_first(const struct model_config *config, int kv_head)
{
    return cut(config->ffn, kv_head, config->kv_heads);
}

static enum tca_status check_ranks(const struct model_config *config, int rank, int ranks,
                                   struct tca_error *error)
{
    const int shares = ranks > config->kv_heads ? ranks : config->kv_heads;

    if (rank < 0 || rank >= ranks)
        return tca_fail(error, TCA_ERR_INVALID, "rank %d, allowed: 0 to %d", rank, ranks - 1);
    if (ranks > SHARD_RANKS_MAX)
        return tca_fail(error, TCA_ERR_UNSUPPORTED, "%d workers, allowed: 1 to %d", ranks,
                        SHARD_RANKS_MAX);
    if (ranks > 1 && (config->ffn < SPLIT_UNIT * shares || config->vocab < SPLIT_UNIT * shares))
        return tca_fail(error, TCA_ERR_UNSUPPORTED,
                        "%d workers cannot share %d FFN columns and %d tokens: several workers "
                        "need %d of each for each of %d %s",
                        ranks, config->ffn, config->vocab, SPLIT_UNIT, shares,
                        ranks > config->kv_heads ? "workers" : "KV heads");
    return TCA_OK;
}

enum tca_status shard_plan_make(const struct model_config *config, int rank, int ranks,
                                struct shard *shard_out, struct tca_error *error)
{
    const int heads = config->kv_heads;
    const int group = config->q_heads / heads;
    struct shard shard = {.stripes = 1, .peer_first = rank, .stripe_unit = SHARD_STRIPE_UNIT};
    int first = rank, end = rank + 1, shares = ranks; /* of FFN and vocabulary */

    TCA_TRY(check_ranks(config, rank, ranks, error));
    if (ranks <= heads) {
        first = share_first(heads, rank, ranks);
        end = share_first(heads, rank + 1, ranks);
        shares = heads;
        shard.kv_head_first = first;
        shard.kv_heads = end - first;
    } else {
        shard.kv_head_first = share_of(rank, ranks, heads);
        shard.kv_heads = 1;
        shard.peer_first = share_first(ranks, shard.kv_head_first, heads);
        shard.stripe = rank - shard.peer_first;
        shard.stripes = share_first(ranks, shard.kv_head_first + 1, heads) - shard.peer_first;
    }
    shard.q_head_first = shard.kv_head_first * group;
    shard.q_heads = shard.kv_heads * group;
    shard.ffn_first = cut(config->ffn, first, shares);
    shard.ffn = cut(config->ffn, end, shares) - shard.ffn_first;
    shard.vocab_first = cut(config->vocab, first, shares);
    shard.vocab = cut(config->vocab, end, shares) - shard.vocab_first;
    *shard_out = shard;
    return TCA_OK;
}

int64_t shard_plan_rows(const struct shard *shard, int64_t rows)
{
    const int64_t unit = shard->stripe_unit;
    const int64_t round = unit * shard->stripes;
    int64_t own = rows % round - unit * shard->stripe; /* of the last round */

    own = own < 0 ? 0 : own > unit ? unit : own;
    return rows / round * unit + own;
}

static int64_t striped_tokens(int stripes, int64_t tokens)
{
    const struct shard fullest = {.stripes = stripes, .stripe_unit = SHARD_STRIPE_UNIT};

    return shard_plan_rows(&fullest, tokens) * stripes;
}

int shard_plan_stripes(int kv_heads, int ranks)
{
    return ranks <= kv_heads ? 1 : (ranks + kv_heads - 1) / kv_heads;
}

int64_t shard_plan_kv_tokens(int kv_heads, int ranks, int64_t tokens)
{
    const int stripes = shard_plan_stripes(kv_heads, ranks);
    const int64_t most = striped_tokens(stripes, tokens);
    int64_t least;

    if (stripes == 1 || ranks % kv_heads == 0)
        return most;
    least = striped_tokens(stripes - 1, tokens); /* heads with a stripe less may need more */
    return least > most ? least : most;
}
