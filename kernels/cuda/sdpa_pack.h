/* Copies and merges around cuDNN's attention over packed queries, see sdpa_plan.h. */
#ifndef KERNELS_CUDA_SDPA_PACK_H
#define KERNELS_CUDA_SDPA_PACK_H

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/sdpa_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* packed_out: [queries * group, heads, head_dim] = q: [queries, q_heads,
 * head_dim]; and the lists. */
void cuda_launch_sdpa_pack(cudaStream_t stream, uint16_t *packed_out,
                           const struct sdpa_lists_out *lists, const struct sdpa_pack *pack,
                           const uint16_t *q, int64_t head_stride);
/* out: [queries, q_heads, head_dim], lse: [queries, q_heads] or NULL, of what cuDNN left in packed:
 * [queries * group, heads, head_dim] and packed_lse: [queries * group, heads]. */
void cuda_launch_sdpa_unpack(cudaStream_t stream, uint16_t *out, float *lse,
                             const struct sdpa_pack *pack, const uint16_t *packed,
                             const float *packed_lse);

#ifdef __cplusplus
}
#endif

#endif
