#include "kernels/cpu/matmul_cache.h"

#include "base/log.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

/* Slots of the table, and how many of them may be taken. A model has a handful of matrices, each
 * with about twenty row counts: several models fit. */
enum { SLOTS = 2048, MATMULS_MOST = 1024 };

struct matmul {
    struct matmul_shape shape;
    dnnl_primitive_t primitive; /* owned; NULL: the slot is free */
    dnnl_memory_desc_t x, weight, bias, out, scratch;
};

struct matmul_cache {
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* [threads], owned */
    int threads;
    int count;
    struct matmul slots[SLOTS];
};

static enum tca_status dnnl_to_status(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return TCA_OK;
    log_error("oneDNN: %s failed with code %d", what, (int)status);
    return status == dnnl_out_of_memory ? TCA_ERR_NO_MEMORY : TCA_ERR_DEVICE;
}

static void clear(struct matmul_cache *cache)
{
    for (int i = 0; i < SLOTS; i++)
        if (cache->slots[i].primitive)
            dnnl_primitive_destroy(cache->slots[i].primitive);
    memset(cache->slots, 0, sizeof(cache->slots));
    cache->count = 0;
}

enum tca_status matmul_cache_create(int threads, struct matmul_cache **cache_out)
{
    struct matmul_cache *cache = calloc(1, sizeof(*cache));
    dnnl_stream_t *streams = calloc((size_t)threads, sizeof(dnnl_stream_t));
    if (!cache || !streams) {
        log_error("no memory for the matrix products' cache");
        free(streams);
        free(cache);
        return TCA_ERR_NO_MEMORY;
    }
    cache->streams = streams;
    enum tca_status status =
        dnnl_to_status(dnnl_engine_create(&cache->engine, dnnl_cpu, 0), "engine_create");
    while (status == TCA_OK && cache->threads < threads) {
        status = dnnl_to_status(
            dnnl_stream_create(&streams[cache->threads], cache->engine, dnnl_stream_default_flags),
            "stream_create");
        cache->threads += status == TCA_OK;
    }
    if (status != TCA_OK) {
        matmul_cache_destroy(cache);
        return status;
    }
    *cache_out = cache;
    return TCA_OK;
}

void matmul_cache_destroy(struct matmul_cache *cache)
{
    if (!cache)
        return;
    clear(cache);
    for (int i = 0; i < cache->threads; i++)
        dnnl_stream_destroy(cache->streams[i]);
    if (cache->engine)
        dnnl_engine_destroy(cache->engine);
    free(cache->streams);
    free(cache);
}

void matmul_cache_reserve(struct matmul_cache *cache, int count)
{
    if (cache->count + count > MATMULS_MOST)
        clear(cache);
}

static dnnl_status_t describe(struct matmul *matmul)
{
    const struct matmul_shape *s = &matmul->shape;
    const dnnl_dims_t x_dims = {s->rows, s->in};
    const dnnl_dims_t weight_dims = {s->in, s->out};
    const dnnl_dims_t bias_dims = {1, s->out};
    const dnnl_dims_t out_dims = {s->rows, s->out};
    dnnl_data_type_t out_type = s->out_dtype == KERNEL_F32 ? dnnl_f32 : dnnl_bf16;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&matmul->x, 2, x_dims, dnnl_bf16, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&matmul->weight, 2, weight_dims, dnnl_bf16,
                                              dnnl_BA16a64b2a);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&matmul->bias, 2, bias_dims, dnnl_f32, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&matmul->out, 2, out_dims, out_type, dnnl_ab);
    return status;
}

/* Scratch memory is the caller's: oneDNN's own would be shared between threads. */
static dnnl_status_t compile(struct matmul *matmul, dnnl_engine_t engine)
{
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t primitive_desc = NULL;
    dnnl_status_t status =
        dnnl_matmul_desc_init(&desc, &matmul->x, &matmul->weight,
                              matmul->shape.has_bias ? &matmul->bias : NULL, &matmul->out);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&primitive_desc, &desc, attr, engine, NULL);
    if (status == dnnl_success) {
        matmul->scratch =
            *dnnl_primitive_desc_query_md(primitive_desc, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&matmul->primitive, primitive_desc);
    }
    if (primitive_desc)
        dnnl_primitive_desc_destroy(primitive_desc);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

static size_t hash(const struct matmul_shape *shape)
{
    uint32_t words[sizeof(*shape) / sizeof(uint32_t)];
    memcpy(words, shape, sizeof(words));
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15ull;
    return (size_t)(sum >> 40);
}

enum tca_status matmul_cache_find(struct matmul_cache *cache, const struct matmul_shape *shape,
                                  const struct matmul **matmul_out)
{
    size_t slot = hash(shape) % SLOTS;
    while (cache->slots[slot].primitive) {
        if (memcmp(&cache->slots[slot].shape, shape, sizeof(*shape)) == 0) {
            *matmul_out = &cache->slots[slot];
            return TCA_OK;
        }
        slot = (slot + 1) % SLOTS;
    }
    omp_set_num_threads(1); /* the code is made for the threads that OpenMP has now */
    struct matmul matmul = {.shape = *shape};
    dnnl_status_t status = describe(&matmul);
    if (status == dnnl_success)
        status = compile(&matmul, cache->engine);
    if (status != dnnl_success) {
        log_error("oneDNN: no product of [%d, %d] and [%d, %d] (code %d)", shape->rows, shape->in,
                  shape->out, shape->in, (int)status);
        return TCA_ERR_DEVICE;
    }
    cache->slots[slot] = matmul;
    cache->count++;
    *matmul_out = &cache->slots[slot];
    return TCA_OK;
}

size_t matmul_scratch_bytes(const struct matmul *matmul)
{
    return dnnl_memory_desc_get_size(&matmul->scratch);
}

/* oneDNN's interface takes operands without const. */
static void *without_const(const void *pointer)
{
    return (void *)(uintptr_t)pointer;
}

enum tca_status matmul_run(const struct matmul_cache *cache, const struct matmul *matmul,
                           const struct matmul_operands *operands, int thread)
{
    const struct {
        int arg;
        const dnnl_memory_desc_t *desc;
        void *data;
    } given[] = {
        {DNNL_ARG_SRC, &matmul->x, without_const(operands->x)},
        {DNNL_ARG_WEIGHTS, &matmul->weight, without_const(operands->weight)},
        {DNNL_ARG_DST, &matmul->out, operands->out},
        {DNNL_ARG_SCRATCHPAD, &matmul->scratch, operands->scratch},
        {DNNL_ARG_BIAS, &matmul->bias, without_const(operands->bias)},
    };
    enum { OPERANDS = sizeof(given) / sizeof(given[0]) };
    omp_set_num_threads(1); /* oneDNN must not start threads of its own */
    dnnl_exec_arg_t args[OPERANDS];
    int count = 0;
    dnnl_status_t status = dnnl_success;
    while (status == dnnl_success && count < OPERANDS - !matmul->shape.has_bias) {
        args[count].arg = given[count].arg;
        status = dnnl_memory_create(&args[count].memory, given[count].desc, cache->engine,
                                    given[count].data);
        count += status == dnnl_success;
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(matmul->primitive, cache->streams[thread], count, args);
    while (count > 0)
        dnnl_memory_destroy(args[--count].memory);
    return dnnl_to_status(status, "matmul");
}
