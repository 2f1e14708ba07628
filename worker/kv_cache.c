#include "worker/kv_cache.h"

static size_t token_bytes(const struct kv_shape *shape)
{
    return (size_t)shape->layers * 2 * (size_t)shape->kv_heads * (size_t)shape->head_dim *
           sizeof(uint16_t);
}

static int64_t round_up(int64_t tokens)
{
    return (tokens + KV_CACHE_GRANULE - 1) / KV_CACHE_GRANULE * KV_CACHE_GRANULE;
}

void kv_cache_init(struct kv_cache *cache, const struct device *device,
                   const struct kv_shape *shape, size_t budget_bytes)
{
    *cache = (struct kv_cache){.device = *device, .shape = *shape, .budget_bytes = budget_bytes};
}

size_t kv_cache_range_bytes(const struct kv_shape *shape, int64_t tokens)
{
    size_t bytes;

    if (tokens < 1 || tokens > INT64_MAX - KV_CACHE_GRANULE)
        return 0;
    if (__builtin_mul_overflow((size_t)round_up(tokens), token_bytes(shape), &bytes))
        return 0;
    return bytes;
}

int64_t kv_cache_capacity(const struct kv_cache *cache)
{
    size_t tokens = cache->budget_bytes / token_bytes(&cache->shape);

    return (int64_t)(tokens / KV_CACHE_GRANULE * KV_CACHE_GRANULE);
}

enum tca_status kv_cache_take_bytes(struct kv_cache *cache, size_t bytes, void **data_out)
{
    if (bytes == 0)
        return TCA_ERR_RANGE;
    if (bytes > cache->budget_bytes - cache->used_bytes)
        return TCA_ERR_BUSY;
    TCA_TRY(cache->device.backend->alloc(cache->device.index, bytes, data_out));
    cache->used_bytes += bytes;
    return TCA_OK;
}

void kv_cache_give_back_bytes(struct kv_cache *cache, void *data, size_t bytes)
{
    if (data == NULL)
        return;
    cache->device.backend->free(cache->device.index, data, bytes);
    cache->used_bytes -= bytes;
}

enum tca_status kv_cache_take(struct kv_cache *cache, int64_t tokens, struct kv_range *range_out)
{
    size_t bytes = kv_cache_range_bytes(&cache->shape, tokens);
    void *data;

    TCA_TRY(kv_cache_take_bytes(cache, bytes, &data));
    *range_out = (struct kv_range){.data = data, .capacity = round_up(tokens)};
    return TCA_OK;
}

void kv_cache_give_back(struct kv_cache *cache, struct kv_range *range)
{
    if (range->data == NULL)
        return;
    kv_cache_give_back_bytes(cache, range->data,
                             kv_cache_range_bytes(&cache->shape, range->capacity));
    *range = (struct kv_range){0};
}

struct kv_layer kv_range_layer(const struct kv_range *range, const struct kv_shape *shape,
                               int layer)
{
    int64_t head_stride = range->capacity * shape->head_dim;
    int64_t half = shape->kv_heads * head_stride; /* K, then V */
    uint16_t *k = range->data + (int64_t)layer * 2 * half;

    return (struct kv_layer){.k = k, .v = k + half, .head_stride = head_stride};
}
