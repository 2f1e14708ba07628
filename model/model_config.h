/* A model's architecture, read from the config.json of a Hugging Face folder.
 *
 * LlamaForCausalLM (Llama 2/3.x, SmolLM2), Qwen2ForCausalLM (QKV bias), Qwen3ForCausalLM
 * (QK-norm). Everything a later allocation or loop depends on is checked here: a config that
 * was accepted cannot overflow a size computed from it. */
#ifndef MODEL_MODEL_CONFIG_H
#define MODEL_MODEL_CONFIG_H

#include "base/error.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { MODEL_END_TOKENS_MAX = 16, MODEL_HEAD_DIM_MAX = 256 };

/* The largest model that is read; products of two of these fit 64 bits with room to spare. */
enum {
    MODEL_HIDDEN_MAX = 1 << 17,
    MODEL_LAYERS_MAX = 1 << 10,
    MODEL_HEADS_MAX = 1 << 10,
    MODEL_FFN_MAX = 1 << 20,
    MODEL_VOCAB_MAX = 1 << 22,
    MODEL_POSITIONS_MAX = 1 << 24
};

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct rope_config {
    enum rope_type type;
    double theta;
    double factor;               /* linear, llama3, yarn */
    double low_freq_factor;      /* llama3 */
    double high_freq_factor;     /* llama3 */
    int original_max_positions;  /* llama3, yarn; 0: max_positions */
    double beta_fast, beta_slow; /* yarn */
    double attention_factor;     /* yarn; 0: 0.1 ln(factor) + 1 */
    bool keeps_fractions;        /* yarn: `truncate` is false, the bounds are not rounded */
};

struct model_config {
    char family[32]; /* "llama", "qwen2", "qwen3" */
    int hidden;
    int layers;
    int q_heads;
    int kv_heads;
    int head_dim; /* a multiple of 8 */
    int ffn;
    int vocab;
    int max_positions;
    float rms_eps;
    struct rope_config rope;
    bool has_qkv_bias;
    bool has_qk_norm;
    bool has_tied_embeddings;
    int end_tokens; /* from generation_config.json, else config.json */
    int32_t end_token[MODEL_END_TOKENS_MAX];
    int32_t bos_token; /* -1: none */
};

/* Read `folder`/config.json (and generation_config.json, for end tokens only, where it exists).
 * TCA_ERR_NOT_FOUND, TCA_ERR_INVALID or TCA_ERR_UNSUPPORTED with the file, key and value. */
enum tca_status model_config_read(const char *folder, struct model_config *config_out,
                                  struct tca_error *error);

/* Matrix and norm parameters, tied embeddings counted once. */
int64_t model_config_parameters(const struct model_config *config);

/* K and V of one token over all layers for `kv_heads` heads, bf16. */
int64_t model_config_kv_bytes(const struct model_config *config, int kv_heads);

#endif
