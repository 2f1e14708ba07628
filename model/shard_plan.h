/* Which part of every tensor a rank holds: the one place that decides it, a pure function. */
#ifndef MODEL_SHARD_PLAN_H
#define MODEL_SHARD_PLAN_H

#include "base/error.h"
#include "model/model_config.h"

struct shard {
    int kv_head_first, kv_heads;
    int q_head_first, q_heads; /* the whole groups of those KV heads */
    int ffn_first, ffn;        /* FFN columns: multiples of 16, in proportion to kv_heads */
    int vocab_first, vocab;    /* vocabulary rows: the same */
};

/* First FFN column of KV head `kv_head`'s share; kv_head == kv_heads: the end. A rank's columns are
 * the shares of its heads. A share may be empty where one rank holds everything. */
int shard_plan_ffn_first(const struct model_config *config, int kv_head);

/* The part of `rank` of `ranks`. Whole KV-head groups, the first ranks get one more: 4 heads on
 * 3 ranks is 2 + 1 + 1. A remainder that is no multiple of 16 goes to the last rank.
 * TCA_ERR_UNSUPPORTED: more ranks than KV heads, or FFN or vocabulary too small to share. */
enum tca_status shard_plan_make(const struct model_config *config, int rank, int ranks,
                                struct shard *shard_out, struct tca_error *error);

#endif
