#include "model/model_config.h"

#include "base/json.h"
#include "model/rope_config.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 4 << 20, HEAD_DIM_MULTIPLE = 8, QWEN3_HEAD_DIM = 128 };

static const struct family {
    const char *architecture, *name;
    bool has_qkv_bias, has_qk_norm;
} families[] = {
    {"LlamaForCausalLM", "llama", false, false},
    {"Qwen2ForCausalLM", "qwen2", true, false},
    {"Qwen3ForCausalLM", "qwen3", false, true},
};

static enum tca_status read_family(const struct json_node *root, struct model_config *config,
                                   struct tca_error *error)
{
    struct json_node list = json_node_get(root, "architectures");
    struct json_node first = {0};
    const char *text;
    size_t bytes;

    TCA_TRY(json_node_expect(&list, JSON_TYPE_ARRAY, error));
    if (!json_node_next(&list, &first))
        return json_node_fail(&list, error, TCA_ERR_INVALID, "is empty, must name an architecture");
    TCA_TRY(json_node_string(&first, &text, &bytes, error));
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (strlen(families[i].architecture) == bytes &&
            memcmp(families[i].architecture, text, bytes) == 0) {
            snprintf(config->family, sizeof(config->family), "%s", families[i].name);
            config->has_qkv_bias = families[i].has_qkv_bias;
            config->has_qk_norm = families[i].has_qk_norm;
            return TCA_OK;
        }
    return json_node_fail(&first, error, TCA_ERR_UNSUPPORTED,
                          "= \"%.80s\" is not supported, allowed: LlamaForCausalLM, "
                          "Qwen2ForCausalLM, Qwen3ForCausalLM",
                          text);
}

/* Switches of the architectures that would change the arithmetic: only "off" is known here. */
static enum tca_status refuse_switches(const struct json_node *root,
                                       const struct model_config *config, struct tca_error *error)
{
    static const char *const switches[] = {"mlp_bias", "use_sliding_window", "attention_bias"};

    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        struct json_node node = json_node_get(root, switches[i]);
        bool is_on = false;

        if (json_node_exists(&node))
            TCA_TRY(json_node_bool(&node, &is_on, error));
        if (is_on && !(config->has_qkv_bias && strcmp(switches[i], "attention_bias") == 0))
            return json_node_fail(&node, error, TCA_ERR_UNSUPPORTED,
                                  "= true is not supported, allowed: false");
    }
    return TCA_OK;
}

static enum tca_status expect_text(const struct json_node *node, const char *allowed,
                                   struct tca_error *error)
{
    const char *text;
    size_t bytes;

    TCA_TRY(json_node_string(node, &text, &bytes, error));
    if (strlen(allowed) != bytes || memcmp(allowed, text, bytes) != 0)
        return json_node_fail(node, error, TCA_ERR_UNSUPPORTED,
                              "= \"%.80s\" is not supported, allowed: %s", text, allowed);
    return TCA_OK;
}

static enum tca_status refuse_unsupported(const struct json_node *root,
                                          const struct model_config *config,
                                          struct tca_error *error)
{
    struct json_node act = json_node_get(root, "hidden_act");
    struct json_node quantization = json_node_get(root, "quantization_config");
    struct json_node layers = json_node_get(root, "layer_types");
    struct json_node layer = {0};

    TCA_TRY(refuse_switches(root, config, error));
    if (json_node_exists(&act))
        TCA_TRY(expect_text(&act, "silu", error));
    if (json_node_exists(&quantization))
        return json_node_fail(&quantization, error, TCA_ERR_UNSUPPORTED,
                              "is set: quantised weights are not supported");
    while (json_node_next(&layers, &layer))
        TCA_TRY(expect_text(&layer, "full_attention", error));
    return TCA_OK;
}

/* initial < 0: the key is required. */
static enum tca_status read_int(const struct json_node *root, const char *key, int max, int initial,
                                int *value_out, struct tca_error *error)
{
    struct json_node node = json_node_get(root, key);
    int64_t value = initial;

    if (initial < 0 || json_node_exists(&node))
        TCA_TRY(json_node_int(&node, 1, max, &value, error));
    *value_out = (int)value;
    return TCA_OK;
}

static enum tca_status read_heads(const struct json_node *root, struct model_config *config,
                                  struct tca_error *error)
{
    struct json_node kv_node = json_node_get(root, "num_key_value_heads");
    struct json_node dim_node = json_node_get(root, "head_dim");
    int head_dim;

    TCA_TRY(read_int(root, "num_attention_heads", MODEL_HEADS_MAX, -1, &config->q_heads, error));
    TCA_TRY(read_int(root, "num_key_value_heads", MODEL_HEADS_MAX, config->q_heads,
                     &config->kv_heads, error));
    if (config->q_heads % config->kv_heads != 0)
        return json_node_fail(&kv_node, error, TCA_ERR_INVALID,
                              "= %d must divide num_attention_heads = %d", config->kv_heads,
                              config->q_heads);
    head_dim = config->has_qk_norm ? QWEN3_HEAD_DIM : config->hidden / config->q_heads;
    if (!json_node_exists(&dim_node) && !config->has_qk_norm &&
        config->hidden % config->q_heads != 0)
        return json_node_fail(&dim_node, error, TCA_ERR_INVALID,
                              "is missing, and hidden_size = %d is no multiple of "
                              "num_attention_heads = %d",
                              config->hidden, config->q_heads);
    TCA_TRY(read_int(root, "head_dim", INT_MAX, head_dim, &config->head_dim, error));
    if (config->head_dim % HEAD_DIM_MULTIPLE != 0 || config->head_dim > MODEL_HEAD_DIM_MAX)
        return json_node_fail(&dim_node, error, TCA_ERR_UNSUPPORTED,
                              "= %d is not supported, allowed: multiples of %d up to %d",
                              config->head_dim, HEAD_DIM_MULTIPLE, MODEL_HEAD_DIM_MAX);
    return TCA_OK;
}

static enum tca_status read_eps(const struct json_node *root, struct model_config *config,
                                struct tca_error *error)
{
    struct json_node node = json_node_get(root, "rms_norm_eps");
    double eps = 1e-6;

    if (json_node_exists(&node))
        TCA_TRY(json_node_double(&node, &eps, error));
    if (!(eps >= 1e-12 && eps <= 0.1))
        return json_node_fail(&node, error, TCA_ERR_INVALID, "= %g must be from 1e-12 to 0.1", eps);
    config->rms_eps = (float)eps;
    return TCA_OK;
}

static enum tca_status read_numbers(const struct json_node *root, struct model_config *config,
                                    struct tca_error *error)
{
    struct json_node tie = json_node_get(root, "tie_word_embeddings");

    TCA_TRY(read_int(root, "hidden_size", MODEL_HIDDEN_MAX, -1, &config->hidden, error));
    TCA_TRY(read_int(root, "num_hidden_layers", MODEL_LAYERS_MAX, -1, &config->layers, error));
    TCA_TRY(read_int(root, "intermediate_size", MODEL_FFN_MAX, -1, &config->ffn, error));
    TCA_TRY(read_int(root, "vocab_size", MODEL_VOCAB_MAX, -1, &config->vocab, error));
    TCA_TRY(read_int(root, "max_position_embeddings", MODEL_POSITIONS_MAX, -1,
                     &config->max_positions, error));
    TCA_TRY(read_heads(root, config, error));
    TCA_TRY(read_eps(root, config, error));
    if (json_node_exists(&tie))
        TCA_TRY(json_node_bool(&tie, &config->has_tied_embeddings, error));
    return TCA_OK;
}

static enum tca_status append_end_token(const struct json_node *node, struct model_config *config,
                                        struct tca_error *error)
{
    int64_t id;

    TCA_TRY(json_node_int(node, 0, config->vocab - 1, &id, error));
    if (config->end_tokens == MODEL_END_TOKENS_MAX)
        return json_node_fail(node, error, TCA_ERR_UNSUPPORTED,
                              "is too much: at most %d end tokens are allowed",
                              MODEL_END_TOKENS_MAX);
    config->end_token[config->end_tokens++] = (int32_t)id;
    return TCA_OK;
}

/* One id, a list of them, or nothing. */
static enum tca_status read_end_tokens(const struct json_node *root, struct model_config *config,
                                       struct tca_error *error)
{
    struct json_node node = json_node_get(root, "eos_token_id");
    struct json_node child = {0};

    if (json_node_type(&node) != JSON_TYPE_ARRAY)
        return json_node_exists(&node) ? append_end_token(&node, config, error) : TCA_OK;
    while (json_node_next(&node, &child))
        TCA_TRY(append_end_token(&child, config, error));
    return TCA_OK;
}

static enum tca_status read_config(const struct json_node *root, struct model_config *config,
                                   struct tca_error *error)
{
    struct json_node bos = json_node_get(root, "bos_token_id");
    int64_t bos_token = -1;

    TCA_TRY(json_node_expect(root, JSON_TYPE_OBJECT, error));
    TCA_TRY(read_family(root, config, error));
    TCA_TRY(refuse_unsupported(root, config, error));
    TCA_TRY(read_numbers(root, config, error));
    TCA_TRY(rope_config_read(root, config->max_positions, &config->rope, error));
    if (json_node_exists(&bos))
        TCA_TRY(json_node_int(&bos, 0, config->vocab - 1, &bos_token, error));
    config->bos_token = (int32_t)bos_token;
    return TCA_OK;
}

static enum tca_status open_json(const char *folder, const char *name,
                                 struct json_document **document_out, struct tca_error *error)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path))
        return tca_fail(error, TCA_ERR_INVALID, "%.80s..: the path is too long", folder);
    return json_document_open(path, CONFIG_BYTES_MAX, document_out, error);
}

/* generation_config.json is optional, and so are the end tokens in it. */
static enum tca_status read_generation_config(const char *folder, struct model_config *config,
                                              struct tca_error *error)
{
    struct json_document *document = NULL;
    struct tca_error unread;
    struct json_node root;
    enum tca_status status;

    status = open_json(folder, "generation_config.json", &document, &unread);
    if (status == TCA_ERR_NOT_FOUND)
        return TCA_OK;
    if (status != TCA_OK)
        return tca_fail(error, status, "%s", unread.text);
    root = json_document_root(document);
    status = json_node_expect(&root, JSON_TYPE_OBJECT, error);
    if (status == TCA_OK)
        status = read_end_tokens(&root, config, error);
    json_document_close(document);
    return status;
}

enum tca_status model_config_read(const char *folder, struct model_config *config_out,
                                  struct tca_error *error)
{
    struct model_config config = {0};
    struct json_document *document = NULL;
    struct json_node root;
    enum tca_status status;

    TCA_TRY(open_json(folder, "config.json", &document, error));
    root = json_document_root(document);
    status = read_config(&root, &config, error);
    if (status == TCA_OK)
        status = read_generation_config(folder, &config, error);
    if (status == TCA_OK && config.end_tokens == 0)
        status = read_end_tokens(&root, &config, error);
    json_document_close(document);
    if (status == TCA_OK)
        *config_out = config;
    return status;
}

int64_t model_config_parameters(const struct model_config *config)
{
    const int64_t hidden = config->hidden;
    const int64_t q = (int64_t)config->q_heads * config->head_dim;
    const int64_t kv = (int64_t)config->kv_heads * config->head_dim;
    int64_t layer = hidden * (2 * q + 2 * kv + 3 * (int64_t)config->ffn) + 2 * hidden;

    if (config->has_qkv_bias)
        layer += q + 2 * kv;
    if (config->has_qk_norm)
        layer += 2 * (int64_t)config->head_dim;
    return layer * config->layers + hidden +
           hidden * config->vocab * (config->has_tied_embeddings ? 1 : 2);
}

int64_t model_config_kv_bytes(const struct model_config *config, int kv_heads)
{
    return (int64_t)sizeof(uint16_t) * 2 * config->layers * kv_heads * config->head_dim;
}
