/* Which part of every tensor a rank holds: the one place that decides it, a pure function.
 *
 * With at most as many ranks as KV heads, a rank has whole heads. With more, every rank has one
 * head, and the ranks that share it hold stripes of the sequences: a sequence's rows are cut into
 * units of `stripe_unit` tokens, unit u belongs to stripe u mod `stripes`
 * (docs/decisions/0009-stripes.md). */
#ifndef MODEL_SHARD_PLAN_H
#define MODEL_SHARD_PLAN_H

#include "base/error.h"
#include "model/model_config.h"

#include <stdint.h>

enum {
    SHARD_RANKS_MAX = 256,
    SHARD_STRIPE_UNIT = 4096, /* tokens; other units are multiples of 64 too (a block's tokens) */
};

struct shard {
    int kv_head_first, kv_heads;
    int q_head_first, q_heads; /* the whole groups of those KV heads */
    int ffn_first, ffn;        /* FFN columns: multiples of 16, in proportion to kv_heads */
    int vocab_first, vocab;    /* vocabulary rows: the same */
    int stripes, stripe; /* how many ranks share the one KV head, and which this is; 1, 0: none */
    int peer_first;      /* they are the ranks peer_first .. peer_first + stripes - 1 */
    int stripe_unit;     /* tokens */
};

/* First FFN column of KV head `kv_head`'s share; kv_head == kv_heads: the end. A rank's columns are
 * the shares of its heads. A share may be empty where one rank holds everything. Meaningless with
 * more ranks than heads. */
int shard_plan_ffn_first(const struct model_config *config, int kv_head);

/* The part of `rank` of `ranks`. Whole KV-head groups, the first ranks get one more: 4 heads on
 * 3 ranks is 2 + 1 + 1. More ranks than heads: consecutive ranks share a head, the first heads get
 * one more: 4 heads on 6 ranks is 2 + 2 + 1 + 1; FFN and vocabulary are then shared equally by all.
 * A remainder that is no multiple of 16 goes to the last rank. stripe_unit is SHARD_STRIPE_UNIT.
 * TCA_ERR_UNSUPPORTED: more than SHARD_RANKS_MAX, or FFN or vocabulary too small to share. */
enum tca_status shard_plan_make(const struct model_config *config, int rank, int ranks,
                                struct shard *shard_out, struct tca_error *error);

/* How many of a sequence's first `rows` rows this rank holds; also the place of row `rows` among
 * those it holds, if it is its own. */
int64_t shard_plan_rows(const struct shard *shard, int64_t rows);

/* What a sequence of `tokens` counts against the KV memory of `ranks` ranks, in tokens: the most of
 * any stripe, times the stripes. `tokens` where nothing is striped; never less, and never falling
 * when `tokens` grow. Units are of SHARD_STRIPE_UNIT. */
int64_t shard_plan_kv_tokens(int kv_heads, int ranks, int64_t tokens);

/* The most ranks that share a KV head; 1: none do. */
int shard_plan_stripes(int kv_heads, int ranks);

#endif
