/* The kernels' launchers: what a .cu file offers to C. Pointers are to device memory unless said
 * otherwise; shapes as in kernels/backend.h. A launcher only enqueues; its error is read with
 * cuda_launch_status(). */
#ifndef KERNELS_CUDA_LAUNCH_H
#define KERNELS_CUDA_LAUNCH_H

#include "kernels/backend.h"
#include "kernels/cuda/algorithm_cache.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out = bf16 of x. x: [count] f32. */
void cuda_launch_to_bf16(cudaStream_t stream, uint16_t *out, const float *x, int count);

/* out: [rows, cols] bf16. */
void cuda_launch_dummy(cudaStream_t stream, uint16_t *out, const struct dummy_rows *rows, int cols);

enum { GEMV_ROWS_MOST = 4 };

/* Whether cuda_launch_gemv() takes a product; has_bias does not matter. */
bool cuda_gemv_takes(const struct matmul_shape *shape);
/* out = x weight^T + bias, f32 or bf16 by the shape. bias: [out] f32 or NULL. */
void cuda_launch_gemv(cudaStream_t stream, void *out, const struct matmul_shape *shape,
                      const uint16_t *x, const uint16_t *weight, const float *bias);

/* table: [table_rows, cols] bf16; ids: device [rows]. */
void cuda_launch_embed(cudaStream_t stream, float *out, const uint16_t *table, int table_rows,
                       int cols, const int32_t *ids, int rows, int first_id);

void cuda_launch_residual_norm(cudaStream_t stream, uint16_t *out, float *x, const uint16_t *delta,
                               const uint16_t *rest, const float *weight, int rows, int cols,
                               float eps);

void cuda_launch_rope_table(cudaStream_t stream, float *table_out, const int32_t *positions,
                            int rows, const float *inv_freq, int half, float magnitude);

enum { ROPE_APPENDS_MAX = 64 };

/* Passed to the kernel by value: no copy has to run before it. */
struct rope_appends {
    int count;
    int tokens; /* of all */
    struct kv_append append[ROPE_APPENDS_MAX];
};

void cuda_launch_rope_append(cudaStream_t stream, uint16_t *q_out,
                             const struct rope_appends *appends, const uint16_t *qkv,
                             const struct attention_shape *shape, const float *rope,
                             const struct qk_norm *norm);

void cuda_launch_swiglu(cudaStream_t stream, uint16_t *out, const uint16_t *gate_up, int rows,
                        int cols);

void cuda_launch_take_rows(cudaStream_t stream, float *out, const float *x, const int32_t *indices,
                           int rows, int cols);

enum { TOP_COUNT_MAX = 256 };

struct logits_top_out {
    float *values; /* device [rows, count] */
    int32_t *ids;  /* device [rows, count] */
    float *lse;    /* device [rows] */
};

/* count: at most TOP_COUNT_MAX; scratch: device, for the candidates of pieces of long rows. */
void cuda_launch_logits_top(cudaStream_t stream, const struct logits_top_out *out,
                            const float *logits, int rows, int cols, int count, void *scratch,
                            size_t scratch_bytes);

#ifdef __cplusplus
}
#endif

#endif
