#include "kernels/cuda/algorithm_cache.h"

#include "base/hash.h"

#include <stdlib.h>

/* A shape lives in one of WAYS places of its set; the oldest goes, and what was found by trials
 * last. */
enum { SETS = 512, WAYS = 4 };

struct entry {
    struct matmul_shape shape; /* rows 0: empty */
    uint64_t age;              /* the order of keeping; UINT64_MAX: found by trials */
    cublasLtMatmulAlgo_t algorithm;
};

struct algorithm_cache {
    uint64_t kept;
    struct entry entries[SETS][WAYS];
};

enum tca_status algorithm_cache_create(struct algorithm_cache **cache_out)
{
    struct algorithm_cache *cache = calloc(1, sizeof(*cache));

    if (cache == NULL)
        return TCA_ERR_NO_MEMORY;
    *cache_out = cache;
    return TCA_OK;
}

void algorithm_cache_destroy(struct algorithm_cache *cache)
{
    free(cache);
}

static size_t set_of(const struct matmul_shape *shape)
{
    const int parts[] = {shape->rows,           shape->in,       shape->out,
                         (int)shape->out_dtype, shape->has_bias, shape->alignment};

    return (size_t)hash_bytes(parts, sizeof(parts)) % SETS;
}

static bool is_equal(const struct matmul_shape *a, const struct matmul_shape *b)
{
    return a->rows == b->rows && a->in == b->in && a->out == b->out &&
           a->out_dtype == b->out_dtype && a->has_bias == b->has_bias &&
           a->alignment == b->alignment;
}

const cublasLtMatmulAlgo_t *algorithm_cache_find(const struct algorithm_cache *cache,
                                                 const struct matmul_shape *shape)
{
    const struct entry *set = cache->entries[set_of(shape)];

    for (int i = 0; i < WAYS; i++)
        if (is_equal(&set[i].shape, shape))
            return &set[i].algorithm;
    return NULL;
}

void algorithm_cache_keep(struct algorithm_cache *cache, const struct matmul_shape *shape,
                          const cublasLtMatmulAlgo_t *algorithm, bool was_tried)
{
    const uint64_t age = was_tried ? UINT64_MAX : ++cache->kept;
    struct entry *set = cache->entries[set_of(shape)];
    struct entry *oldest = &set[0];

    for (int i = 1; i < WAYS; i++)
        if (set[i].age < oldest->age)
            oldest = &set[i];
    *oldest = (struct entry){.shape = *shape, .age = age, .algorithm = *algorithm};
}
