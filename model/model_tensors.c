#include "model/model_tensors.h"

#include <stdio.h>

enum { NAME_BYTES = 96 };

/* Sizes that shapes are made of. NONE as rows: a vector. */
enum extent { NONE, HIDDEN, VOCAB, FFN, HEAD, Q_ROWS, KV_ROWS };

static const struct {
    const char *name; /* %d is the layer */
    enum extent rows, cols;
} table[] = {
    [MODEL_EMBEDDING] = {"model.embed_tokens.weight", VOCAB, HIDDEN},
    [MODEL_FINAL_NORM] = {"model.norm.weight", NONE, HIDDEN},
    [MODEL_OUTPUT] = {"lm_head.weight", VOCAB, HIDDEN},
    [MODEL_INPUT_NORM] = {"input_layernorm.weight", NONE, HIDDEN},
    [MODEL_Q] = {"self_attn.q_proj.weight", Q_ROWS, HIDDEN},
    [MODEL_K] = {"self_attn.k_proj.weight", KV_ROWS, HIDDEN},
    [MODEL_V] = {"self_attn.v_proj.weight", KV_ROWS, HIDDEN},
    [MODEL_Q_BIAS] = {"self_attn.q_proj.bias", NONE, Q_ROWS},
    [MODEL_K_BIAS] = {"self_attn.k_proj.bias", NONE, KV_ROWS},
    [MODEL_V_BIAS] = {"self_attn.v_proj.bias", NONE, KV_ROWS},
    [MODEL_Q_NORM] = {"self_attn.q_norm.weight", NONE, HEAD},
    [MODEL_K_NORM] = {"self_attn.k_norm.weight", NONE, HEAD},
    [MODEL_O] = {"self_attn.o_proj.weight", HIDDEN, Q_ROWS},
    [MODEL_FFN_NORM] = {"post_attention_layernorm.weight", NONE, HIDDEN},
    [MODEL_GATE] = {"mlp.gate_proj.weight", FFN, HIDDEN},
    [MODEL_UP] = {"mlp.up_proj.weight", FFN, HIDDEN},
    [MODEL_DOWN] = {"mlp.down_proj.weight", HIDDEN, FFN},
};

static int64_t extent_of(const struct model_config *config, enum extent extent)
{
    switch (extent) {
    case NONE:
        return 0;
    case HIDDEN:
        return config->hidden;
    case VOCAB:
        return config->vocab;
    case FFN:
        return config->ffn;
    case HEAD:
        return config->head_dim;
    case Q_ROWS:
        return (int64_t)config->q_heads * config->head_dim;
    case KV_ROWS:
        return (int64_t)config->kv_heads * config->head_dim;
    }
    return 0;
}

enum tca_status model_tensor_find(const struct model_config *config,
                                  const struct weight_files *files, enum model_tensor tensor,
                                  int layer, struct weight_tensor *tensor_out,
                                  struct tca_error *error)
{
    char name[NAME_BYTES];

    if (tensor == MODEL_OUTPUT && config->has_tied_embeddings)
        tensor = MODEL_EMBEDDING;
    if (tensor >= MODEL_INPUT_NORM)
        snprintf(name, sizeof(name), "model.layers.%d.%s", layer, table[tensor].name);
    else
        snprintf(name, sizeof(name), "%s", table[tensor].name);
    return weight_files_find(files, name, extent_of(config, table[tensor].rows),
                             extent_of(config, table[tensor].cols), tensor_out, error);
}

static bool has_tensor(const struct model_config *config, enum model_tensor tensor)
{
    if (tensor == MODEL_Q_BIAS || tensor == MODEL_K_BIAS || tensor == MODEL_V_BIAS)
        return config->has_qkv_bias;
    if (tensor == MODEL_Q_NORM || tensor == MODEL_K_NORM)
        return config->has_qk_norm;
    return true;
}

enum tca_status model_check_tensors(const struct model_config *config,
                                    const struct weight_files *files, struct tca_error *error)
{
    struct weight_tensor found;

    for (int tensor = 0; tensor < MODEL_TENSOR_COUNT; tensor++) {
        int layers = tensor >= MODEL_INPUT_NORM ? config->layers : 1;

        for (int layer = 0; layer < layers && has_tensor(config, (enum model_tensor)tensor);
             layer++)
            TCA_TRY(
                model_tensor_find(config, files, (enum model_tensor)tensor, layer, &found, error));
    }
    return TCA_OK;
}
