/* The CUDA backend's entries of struct kernel_backend, see kernels/backend.h. */
#ifndef KERNELS_CUDA_OPS_H
#define KERNELS_CUDA_OPS_H

#include "kernels/backend.h"

enum tca_status cuda_queue_create(int device, int threads, struct kernel_queue **queue_out);
void cuda_queue_destroy(struct kernel_queue *queue);
enum tca_status cuda_queue_wait(struct kernel_queue *queue);

enum tca_status cuda_alloc(int device, size_t bytes, void **ptr_out);
void cuda_free(int device, void *ptr, size_t bytes);
enum tca_status cuda_memory(int device, size_t *total_bytes_out, size_t *free_bytes_out);
enum tca_status cuda_upload(struct kernel_queue *queue, void *device, const void *host,
                            size_t bytes);
enum tca_status cuda_download(struct kernel_queue *queue, void *host, const void *device,
                              size_t bytes);

enum tca_status cuda_copy(struct kernel_queue *queue, void *to, const void *from, size_t bytes);
enum tca_status cuda_zero(struct kernel_queue *queue, void *device, size_t bytes);

enum tca_status cuda_weight_create(struct kernel_queue *queue, const uint16_t *host_rows, int rows,
                                   int cols, bool keep_rows, struct kernel_weight **weight_out);
enum tca_status cuda_weight_create_dummy(struct kernel_queue *queue, const struct dummy_rows *runs,
                                         int count, int cols, struct kernel_weight **weight_out);
void cuda_weight_destroy(struct kernel_queue *queue, struct kernel_weight *weight);
size_t cuda_weight_bytes(const struct kernel_weight *weight);
enum tca_status cuda_linear(struct kernel_queue *queue, void *out, enum kernel_dtype out_dtype,
                            const uint16_t *x, const struct kernel_weight *weight,
                            const float *bias, int rows);

enum tca_status cuda_embed(struct kernel_queue *queue, float *out,
                           const struct kernel_weight *table, const int32_t *ids, int rows,
                           int first_id);
enum tca_status cuda_residual_norm(struct kernel_queue *queue, uint16_t *out, float *x,
                                   const void *delta, const void *rest, const float *weight,
                                   int rows, int cols, float eps);
enum tca_status cuda_rope_table(struct kernel_queue *queue, float *table_out,
                                const int32_t *positions, int rows, const float *inv_freq, int half,
                                float magnitude);
enum tca_status cuda_rope_append(struct kernel_queue *queue, uint16_t *q_out,
                                 const struct kv_append *appends, int append_count, const void *qkv,
                                 const struct attention_shape *shape, const float *rope,
                                 const struct qk_norm *norm);
enum tca_status cuda_attention(struct kernel_queue *queue, uint16_t *out, float *lse,
                               const uint16_t *q, const struct attention_shape *shape,
                               const struct attention_item *items, int item_count);
enum tca_status cuda_linear_prepare(struct kernel_queue *queue, void *out,
                                    enum kernel_dtype out_dtype, const uint16_t *x,
                                    const struct kernel_weight *weight, const float *bias,
                                    int rows);
enum tca_status cuda_attention_prepare(struct kernel_queue *queue,
                                       const struct attention_shape *shape, int queries);
enum tca_status cuda_swiglu(struct kernel_queue *queue, uint16_t *out, const void *gate_up,
                            int rows, int cols);
enum tca_status cuda_take_rows(struct kernel_queue *queue, float *out, const float *x,
                               const int32_t *indices, int rows, int cols);
enum tca_status cuda_logits_top(struct kernel_queue *queue, float *values_out, int32_t *ids_out,
                                float *lse_out, const float *logits, int rows, int cols, int count);

enum tca_status cuda_block_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                  const struct attention_shape *shape, const int32_t *observers,
                                  int count, const struct attention_segment *keys);
enum tca_status cuda_token_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                  const float *lse, const struct attention_shape *shape,
                                  const int32_t *observers, int count,
                                  const struct attention_segment *keys);

enum tca_status cuda_observer_lse(struct kernel_queue *base, float *lse_out, const float *scores,
                                  const float *lse_own, const int32_t *observers, int count,
                                  int q_heads, int64_t blocks);
enum tca_status cuda_block_masses(struct kernel_queue *base, float *masses_out, const float *scores,
                                  const float *lse, int count, const struct attention_shape *shape,
                                  int64_t blocks);
enum tca_status cuda_attention_merge(struct kernel_queue *base, uint16_t *out, float *lse,
                                     const uint16_t *out_other, const float *lse_other, int rows,
                                     const struct attention_shape *shape);
enum tca_status cuda_kept_masses(struct kernel_queue *base, float *masses_out,
                                 const float *lse_kept, const float *lse, int rows,
                                 const struct attention_shape *shape);
enum tca_status cuda_select(struct kernel_queue *base, int32_t *kept_out, int64_t kept_stride,
                            int32_t *counts_out, enum select_rule rule,
                            const struct select_input *input, const int64_t *budgets, int kv_heads);
enum tca_status cuda_gather(struct kernel_queue *base, const struct kv_copy *copy,
                            const struct attention_segment *keys, const int32_t *kept,
                            int64_t kept_stride, const int32_t *counts,
                            const struct attention_shape *shape);
enum tca_status cuda_interleave(struct kernel_queue *base, float *out, const float *gathered,
                                const struct kernel_stripes *stripes, int64_t stride,
                                int64_t total);
enum tca_status cuda_pick(struct kernel_queue *base, int32_t *picked_out, int32_t *count_out,
                          const int32_t *kept, const int32_t *count,
                          const struct kernel_stripes *stripes);

#endif
