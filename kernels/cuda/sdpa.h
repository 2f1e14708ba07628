/* Attention by cuDNN, where this build has its frontend and this machine the library: long runs of
 * queries over the keys of one segment, and few over many, packed (sdpa_plan.h). It is opened at
 * run time, so that a machine without it still has the own kernels. One thread's; sdpa.cpp, or
 * no_sdpa.c where there is no frontend. */
#ifndef KERNELS_CUDA_SDPA_H
#define KERNELS_CUDA_SDPA_H

#include "kernels/cuda/sdpa_plan.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdpa;

enum {
    SDPA_QUERIES_LEAST = 512, /* fewer are packed, or the own kernels' */
    SDPA_QUERIES_MOST = 8192,
};

/* What a plan is made for: `queries` rows over any number of keys. */
struct sdpa_form {
    struct attention_shape shape;
    int queries;
    bool is_causal; /* query t of T sees keys up to row keys - T + t */
};

/* All on the device. Pointers are those of the first query; offsets, in elements, those of every KV
 * head's first row, and of its group's first head. A KV head without keys is left as it was. */
struct sdpa_tensors {
    uint16_t *out;     /* [queries, q_heads, head_dim] */
    float *lse;        /* [queries, q_heads] */
    const uint16_t *q; /* [queries, q_heads, head_dim] */
    const uint16_t *k, *v;
    const int64_t *q_offsets, *kv_offsets; /* [kv_heads + 1]; the last is not read */
    const int32_t
        *query_counts; /* [kv_heads], up to the form's queries; what is behind is undefined */
    const int32_t *key_counts; /* [kv_heads] */
};

/* Opens the library and says in the log which, or why there is none: then *sdpa_out is NULL. */
enum tca_status sdpa_create(cudaStream_t stream, struct sdpa **sdpa_out);
void sdpa_destroy(struct sdpa *sdpa); /* NULL is a no-op */

/* Make the form's plan, unless that was tried before: tens of milliseconds, the first more than a
 * second. False: cuDNN has none. */
bool sdpa_prepare(struct sdpa *sdpa, const struct sdpa_form *form);

/* Enqueue a prepared form. */
enum tca_status sdpa_run(struct sdpa *sdpa, const struct sdpa_form *form,
                         const struct sdpa_tensors *tensors);

#ifdef __cplusplus
}
#endif

#endif
