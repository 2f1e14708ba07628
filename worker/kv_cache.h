/* Memory for the keys and values of one rank: one address range per sequence, taken when its
 * length is known and given back whole.
 *
 * A range is [layer][K, V][KV head][capacity][head_dim] bf16, so that every head's rows lie at
 * one constant stride. A document has a range for its tokens; a question has one for its own rows.
 * The budget is a promise kept by arithmetic: ranges come straight from the device and go straight
 * back. Owned by the rank's thread. Sizes in bytes, lengths in tokens. */
#ifndef WORKER_KV_CACHE_H
#define WORKER_KV_CACHE_H

#include "base/status.h"
#include "worker/device.h"

#include <stddef.h>
#include <stdint.h>

enum { KV_CACHE_GRANULE = 64 /* tokens a capacity is rounded up to */ };

struct kv_shape {
    int layers;
    int kv_heads; /* of this rank */
    int head_dim;
};

struct kv_range {
    uint16_t *data;   /* device; NULL: nothing taken */
    int64_t capacity; /* tokens */
};

/* Where one layer's rows are: head h's row i at k + h * head_stride + i * head_dim. */
struct kv_layer {
    uint16_t *k, *v;
    int64_t head_stride; /* elements */
};

struct kv_cache {
    struct device device;
    struct kv_shape shape;
    size_t budget_bytes;
    size_t used_bytes;
};

void kv_cache_init(struct kv_cache *cache, const struct device *device,
                   const struct kv_shape *shape, size_t budget_bytes);

/* Bytes of a range for `tokens` tokens, rounding included; 0 for tokens < 1 or a size that does
 * not fit size_t. */
size_t kv_cache_range_bytes(const struct kv_shape *shape, int64_t tokens);

/* Tokens that one range could hold with the whole budget. */
int64_t kv_cache_capacity(const struct kv_cache *cache);

/* Take a range for `tokens` tokens. TCA_ERR_RANGE: tokens < 1; TCA_ERR_BUSY: over the budget now;
 * TCA_ERR_NO_MEMORY: the device has less than was promised. */
enum tca_status kv_cache_take(struct kv_cache *cache, int64_t tokens, struct kv_range *range_out);
void kv_cache_give_back(struct kv_cache *cache, struct kv_range *range); /* empty is a no-op */

/* Memory of another shape within the same budget. Errors as above. */
enum tca_status kv_cache_take_bytes(struct kv_cache *cache, size_t bytes, void **data_out);
void kv_cache_give_back_bytes(struct kv_cache *cache, void *data, size_t bytes); /* NULL: no-op */

struct kv_layer kv_range_layer(const struct kv_range *range, const struct kv_shape *shape,
                               int layer);

#endif
