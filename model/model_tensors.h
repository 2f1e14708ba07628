/* The tensors of the architectures by their part in the forward pass: names and shapes, and a check
 * that a folder has them all. */
#ifndef MODEL_MODEL_TENSORS_H
#define MODEL_MODEL_TENSORS_H

#include "base/error.h"
#include "base/status.h"
#include "model/model_config.h"
#include "model/weight_files.h"

enum model_tensor {
    /* one of each */
    MODEL_EMBEDDING,  /* [vocab, hidden] */
    MODEL_FINAL_NORM, /* [hidden] */
    MODEL_OUTPUT,     /* [vocab, hidden]; the embedding where they are tied */
    /* one of each a layer */
    MODEL_INPUT_NORM, /* [hidden] */
    MODEL_Q,          /* [q_heads * head_dim, hidden] */
    MODEL_K,          /* [kv_heads * head_dim, hidden] */
    MODEL_V,          /* [kv_heads * head_dim, hidden] */
    MODEL_Q_BIAS,     /* [q_heads * head_dim], with has_qkv_bias only */
    MODEL_K_BIAS,     /* [kv_heads * head_dim], the same */
    MODEL_V_BIAS,     /* [kv_heads * head_dim], the same */
    MODEL_Q_NORM,     /* [head_dim], with has_qk_norm only */
    MODEL_K_NORM,     /* [head_dim], the same */
    MODEL_O,          /* [hidden, q_heads * head_dim] */
    MODEL_FFN_NORM,   /* [hidden] */
    MODEL_GATE,       /* [ffn, hidden] */
    MODEL_UP,         /* [ffn, hidden] */
    MODEL_DOWN,       /* [hidden, ffn] */
    MODEL_TENSOR_COUNT
};

/* Find a tensor of `layer` (0 for those outside the layers) and check its shape; errors as
 * weight_files_find's. Not to be called for a tensor that the architecture lacks. */
enum tca_status model_tensor_find(const struct model_config *config,
                                  const struct weight_files *files, enum model_tensor tensor,
                                  int layer, struct weight_tensor *tensor_out,
                                  struct tca_error *error);

/* Every tensor of the architecture is there with its shape and a readable dtype. Tensors beyond
 * those are ignored. */
enum tca_status model_check_tensors(const struct model_config *config,
                                    const struct weight_files *files, struct tca_error *error);

#endif
