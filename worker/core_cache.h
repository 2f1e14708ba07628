/* What one question keeps of its document on one rank: the selected K and V rows of every layer and
 * KV head, and how many there are.
 *
 * One block of device memory: ragged rows [layer][K, V][KV head][room of that head][head_dim] bf16,
 * then the tables below. A head that may keep more than half of the document has no room of its
 * own: it reads the document in place, whole. Where ranks share a KV head, budgets are for all of
 * them, and each has the kept rows that it holds of the document. Owned by the rank's thread; rooms
 * are fixed when it opens. */
#ifndef WORKER_CORE_CACHE_H
#define WORKER_CORE_CACHE_H

#include "worker/head_budgets.h"
#include "worker/kv_cache.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CORE_CACHE_BINS = 256,
    CORE_CACHE_QUERIES = 32 /* decode queries that a refresh observes with */
};

struct core_cache_options {
    int q_heads;           /* of this rank */
    int64_t held_tokens;   /* of the document on this rank: all of them, but where stripes are */
    double tau;            /* heads below are resized once; 0: off */
    int64_t room_rows;     /* with tau: of every head that has a room; 0: half of the document */
    bool copies_all;       /* the document goes away: nothing is read in place */
    int64_t refresh_every; /* tokens of the answer until it selects again; 0: never */
    bool has_bins;
};

/* One layer's rows on the device. */
struct core_layer {
    uint16_t *k, *v;
    int64_t most_rows; /* the largest room */
    bool has_whole;    /* some head reads the document in place */
};

struct core_cache {
    struct kv_shape shape;
    struct head_budgets budgets; /* owned; 0 rows: the head reads in place */
    struct core_cache_options options;
    bool is_selected; /* decode reads it instead of the document */

    struct core_layer *layer; /* host, owned [layers] */
    int64_t *room;            /* host, owned [layers, kv_heads] rows */
    int32_t *whole_rows;      /* host, owned [layers, kv_heads]: document tokens here, or 0 */
    uint32_t *bins;           /* host, owned [layers, kv_heads, CORE_CACHE_BINS], or NULL */

    void *memory; /* device, owned: rows and the tables below */
    size_t bytes;
    int64_t *offsets; /* device [layers, kv_heads] elements from the layer's k and v */
    int32_t *counts;  /* device [layers, kv_heads] rows in the core */
    int32_t *whole;   /* device [layers, kv_heads] whole_rows */
    float *masses;    /* device [layers, kv_heads, 2]: see kernel_backend.kept_masses */
    uint16_t
        *queries; /* device [layers, CORE_CACHE_QUERIES, q_heads, head_dim]; NULL: no refresh */
    int recorded; /* queries of the answer's last tokens in `queries` */
};

/* Take the memory that `budgets` ask for; they become the cache's own also when this fails.
 * TCA_ERR_BUSY: over the budget now; TCA_ERR_NO_MEMORY. */
enum tca_status core_cache_open(struct kv_cache *kv, struct head_budgets *budgets,
                                const struct core_cache_options *options,
                                struct core_cache **core_out);
void core_cache_close(struct kv_cache *kv, struct core_cache *core); /* NULL is a no-op */

/* What an item attends to instead of the document (`base`): 1 or 2 segments. */
int core_cache_segments(const struct core_cache *core, int layer, const struct kv_layer *base,
                        struct attention_segment *segments_out);

/* Where the layer's gathered rows go. */
struct kv_copy core_cache_copy(const struct core_cache *core, int layer);

/* Let a head of a layer have `rows` tokens: within its room, or in place where that is more than
 * half of the document. `queue`: the tables on the device follow. */
enum tca_status core_cache_resize(struct core_cache *core, struct kernel_queue *queue,
                                  const struct kernel_backend *backend, int layer, int head,
                                  int64_t rows);

#endif
