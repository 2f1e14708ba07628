/* Which queries of an item cuDNN attends to, and how: long runs over one segment as they are, in
 * pieces; few queries over many keys packed (sdpa_plan.h). The rest is the own kernels'. */
#ifndef KERNELS_CUDA_ATTENTION_SDPA_H
#define KERNELS_CUDA_ATTENTION_SDPA_H

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/cuda_queue.h"

/* How many of the item's first queries cuDNN takes; 0 without it. */
int attention_sdpa_share(struct cuda_queue *queue, const struct attention_shape *shape,
                         const struct attention_item *item);

/* Attend to the item's first `share` queries, as many as attention_sdpa_share() said. Scratch has
 * what that takes. */
enum tca_status attention_sdpa_run(struct cuda_queue *queue,
                                   const struct attention_tensors *tensors,
                                   const struct attention_shape *shape,
                                   const struct attention_item *item, int share);

/* Make the plans for items of up to `queries` queries. */
void attention_sdpa_prepare(struct cuda_queue *queue, const struct attention_shape *shape,
                            int queries);

#endif
