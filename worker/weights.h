/* One rank's part of a model's weights, on its device.
 *
 * Every matrix is cut by the shard: q, k and v rows of the rank's heads fused into one matrix,
 * gate and up rows of its FFN columns into another; o_proj and down keep the input columns that
 * match, so that their outputs are partial sums; embedding and lm_head keep vocabulary rows. Only
 * that part is ever read from the files. Used by the rank's thread. */
#ifndef WORKER_WEIGHTS_H
#define WORKER_WEIGHTS_H

#include "base/error.h"
#include "model/model_config.h"
#include "model/shard_plan.h"
#include "model/weight_files.h"
#include "worker/device.h"

struct layer_weights {
    struct kernel_weight *qkv;     /* [(q_heads + 2 kv_heads) * head_dim, hidden] */
    struct kernel_weight *o_proj;  /* [hidden, q_heads * head_dim] */
    struct kernel_weight *gate_up; /* [2 * ffn, hidden], gate first */
    struct kernel_weight *down;    /* [hidden, ffn] */
    float *attention_norm;         /* device [hidden] */
    float *ffn_norm;               /* device [hidden] */
    float *qkv_bias;               /* device [(q_heads + 2 kv_heads) * head_dim], or NULL */
    float *q_norm, *k_norm;        /* device [head_dim], or NULL */
};

struct weights {
    struct device device;
    int layers;
    struct layer_weights *layer;     /* owned [layers] */
    struct kernel_weight *embedding; /* [vocab, hidden], this rank's rows */
    struct kernel_weight *lm_head;   /* [vocab, hidden]; the embedding itself when tied */
    float *final_norm;               /* device [hidden] */
    float *inv_freq;                 /* device [head_dim / 2] */
    float rope_magnitude;
    float *vectors; /* device, owned: the memory of every vector above */
    size_t vector_bytes;
    size_t bytes; /* of everything on the device */
};

/* Load the shard's part of `files`; with `files` NULL fill it with pseudo-random numbers that
 * depend on the tensor's name and the element alone, so that every split of the model is the same
 * model. Borrows `device`, which must outlive the weights.
 * TCA_ERR_NOT_FOUND, TCA_ERR_INVALID: a tensor is missing or has another
 * shape; TCA_ERR_NO_MEMORY. */
enum tca_status weights_create(const struct device *device, const struct model_config *config,
                               const struct shard *shard, const struct weight_files *files,
                               struct weights **weights_out, struct tca_error *error);
void weights_destroy(struct weights *weights); /* NULL is a no-op */

#endif
