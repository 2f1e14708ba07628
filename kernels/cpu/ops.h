/* The operations of the CPU backend, as kernels/backend.h describes them. */
#ifndef KERNELS_CPU_OPS_H
#define KERNELS_CPU_OPS_H

#include "kernels/backend.h"

/* Elements from a segment's k and v to a head's first row. */
static inline int64_t cpu_segment_offset(const struct attention_segment *segment, int head)
{
    return segment->head_offsets ? segment->head_offsets[head] : head * segment->head_stride;
}

/* weight.c, linear.c */
enum tca_status cpu_weight_create_parts(struct kernel_queue *queue, const uint16_t *host_rows,
                                        int rows, const int *part_cols, int parts,
                                        struct kernel_weight **weight_out);
enum tca_status cpu_weight_create(struct kernel_queue *base, const uint16_t *host_rows, int rows,
                                  int cols, bool keep_rows, struct kernel_weight **weight_out);
void cpu_weight_destroy(struct kernel_queue *base, struct kernel_weight *weight);
size_t cpu_weight_bytes(const struct kernel_weight *weight);
enum tca_status cpu_linear(struct kernel_queue *base, void *out, enum kernel_dtype out_dtype,
                           const uint16_t *x, const struct kernel_weight *weight, const float *bias,
                           int rows);
enum tca_status cpu_embed(struct kernel_queue *base, float *out, const struct kernel_weight *table,
                          const int32_t *ids, int rows, int first_id);

/* row_ops.c */
enum tca_status cpu_residual_norm(struct kernel_queue *base, uint16_t *out, float *x,
                                  const void *delta, const void *rest, const float *weight,
                                  int rows, int cols, float eps);
enum tca_status cpu_swiglu(struct kernel_queue *base, uint16_t *out, const void *gate_up, int rows,
                           int cols);
enum tca_status cpu_take_rows(struct kernel_queue *base, float *out, const float *x,
                              const int32_t *indices, int rows, int cols);

/* rope.c */
enum tca_status cpu_rope_table(struct kernel_queue *base, float *table_out,
                               const int32_t *positions, int rows, const float *inv_freq, int half,
                               float magnitude);
enum tca_status cpu_rope_append(struct kernel_queue *base, uint16_t *q_out,
                                const struct kv_append *appends, int append_count, const void *qkv,
                                const struct attention_shape *shape, const float *rope,
                                const struct qk_norm *norm);

/* attention.c */
enum tca_status cpu_attention(struct kernel_queue *base, uint16_t *out, float *lse,
                              const uint16_t *q, const struct attention_shape *shape,
                              const struct attention_item *items, int item_count);

/* logits.c */
enum tca_status cpu_logits_top(struct kernel_queue *base, float *values_out, int32_t *ids_out,
                               float *lse_out, const float *logits, int rows, int cols, int count);

/* scores.c */
enum tca_status cpu_block_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                 const struct attention_shape *shape, const int32_t *observers,
                                 int count, const struct attention_segment *keys);
enum tca_status cpu_token_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                 const float *lse, const struct attention_shape *shape,
                                 const int32_t *observers, int count,
                                 const struct attention_segment *keys);

/* merge.c */
enum tca_status cpu_observer_lse(struct kernel_queue *base, float *lse_out, const float *scores,
                                 const float *lse_own, const int32_t *observers, int count,
                                 int q_heads, int64_t blocks);
enum tca_status cpu_block_masses(struct kernel_queue *base, float *masses_out, const float *scores,
                                 const float *lse, int count, const struct attention_shape *shape,
                                 int64_t blocks);
enum tca_status cpu_attention_merge(struct kernel_queue *base, uint16_t *out, float *lse,
                                    const uint16_t *out_other, const float *lse_other, int rows,
                                    const struct attention_shape *shape);
enum tca_status cpu_kept_masses(struct kernel_queue *base, float *masses_out, const float *lse_kept,
                                const float *lse, int rows, const struct attention_shape *shape);

/* gather.c */
enum tca_status cpu_select(struct kernel_queue *base, int32_t *kept_out, int64_t kept_stride,
                           int32_t *counts_out, enum select_rule rule,
                           const struct select_input *input, const int64_t *budgets, int kv_heads);
enum tca_status cpu_gather(struct kernel_queue *base, const struct kv_copy *copy,
                           const struct attention_segment *keys, const int32_t *kept,
                           int64_t kept_stride, const int32_t *counts,
                           const struct attention_shape *shape);

/* stripes.c */
enum tca_status cpu_interleave(struct kernel_queue *base, float *out, const float *gathered,
                               const struct kernel_stripes *stripes, int64_t stride, int64_t total);
enum tca_status cpu_pick(struct kernel_queue *base, int32_t *picked_out, int32_t *count_out,
                         const int32_t *kept, const int32_t *count,
                         const struct kernel_stripes *stripes);

#endif
