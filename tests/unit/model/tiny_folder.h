/* A whole model folder of a few kilobytes, of any family, with one thing wrong if wanted. */
#ifndef TESTS_UNIT_MODEL_TINY_FOLDER_H
#define TESTS_UNIT_MODEL_TINY_FOLDER_H

#include "tests/support/safetensors_text.h"

enum { TINY_HEADER_BYTES = 16384 };

struct tiny_tensor {
    const char *name; /* after "model.layers.N." when is_layered */
    int is_layered;
    int rows, cols; /* rows 0: a vector */
};

/* Written out from the checkpoints of each family, not from the code under test: hidden 16,
 * 4 query and 2 KV heads of 8, FFN 32, vocabulary 64, 2 layers. */
static const struct tiny_tensor tiny_llama[] = {
    {"model.embed_tokens.weight", 0, 64, 16},
    {"model.norm.weight", 0, 0, 16},
    {"lm_head.weight", 0, 64, 16},
    {"input_layernorm.weight", 1, 0, 16},
    {"self_attn.q_proj.weight", 1, 32, 16},
    {"self_attn.k_proj.weight", 1, 16, 16},
    {"self_attn.v_proj.weight", 1, 16, 16},
    {"self_attn.o_proj.weight", 1, 16, 32},
    {"post_attention_layernorm.weight", 1, 0, 16},
    {"mlp.gate_proj.weight", 1, 32, 16},
    {"mlp.up_proj.weight", 1, 32, 16},
    {"mlp.down_proj.weight", 1, 16, 32},
};
static const struct tiny_tensor tiny_qwen2_extra[] = {
    {"self_attn.q_proj.bias", 1, 0, 32},
    {"self_attn.k_proj.bias", 1, 0, 16},
    {"self_attn.v_proj.bias", 1, 0, 16},
};
static const struct tiny_tensor tiny_qwen3_extra[] = {
    {"self_attn.q_norm.weight", 1, 0, 8},
    {"self_attn.k_norm.weight", 1, 0, 8},
};

enum { TINY_LLAMA = 12, TINY_QWEN2_EXTRA = 3, TINY_QWEN3_EXTRA = 2, TINY_LAYERS = 2 };

struct tiny_header {
    char text[TINY_HEADER_BYTES];
    size_t used;
    size_t data_bytes;
    const char *wrong_name; /* full name of the tensor that is wrong; NULL: none */
    int wrong_rows;         /* its rows instead; -1: it is left out */
};

static inline void tiny_add(struct tiny_header *header, const struct tiny_tensor *tensor, int layer)
{
    char name[96], shape[32];
    size_t bytes;
    int rows = tensor->rows;

    snprintf(name, sizeof(name), "model.layers.%d.%s", layer, tensor->name);
    if (!tensor->is_layered)
        snprintf(name, sizeof(name), "%s", tensor->name);
    if (header->wrong_name != NULL && strcmp(name, header->wrong_name) == 0)
        rows = header->wrong_rows;
    if (rows < 0)
        return;
    bytes = (size_t)(rows == 0 ? 1 : rows) * (size_t)tensor->cols * 2;
    if (rows == 0)
        snprintf(shape, sizeof(shape), "[%d]", tensor->cols);
    else
        snprintf(shape, sizeof(shape), "[%d,%d]", rows, tensor->cols);
    header->used +=
        (size_t)snprintf(header->text + header->used, sizeof(header->text) - header->used,
                         "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                         header->data_bytes == 0 ? "" : ",", name, shape, header->data_bytes,
                         header->data_bytes + bytes);
    header->data_bytes += bytes;
}

static inline void tiny_add_all(struct tiny_header *header, const struct tiny_tensor *tensors,
                                int count)
{
    for (int i = 0; i < count; i++)
        for (int layer = 0; layer < (tensors[i].is_layered ? TINY_LAYERS : 1); layer++)
            tiny_add(header, &tensors[i], layer);
}

/* `family` as in struct model_config. */
static inline void tiny_folder_write(const struct folder *folder, const char *family, int is_tied,
                                     const char *wrong_name, int wrong_rows)
{
    static struct tiny_header header;
    char config[1024];
    const char *architecture = strcmp(family, "llama") == 0   ? "LlamaForCausalLM"
                               : strcmp(family, "qwen2") == 0 ? "Qwen2ForCausalLM"
                                                              : "Qwen3ForCausalLM";

    snprintf(
        config, sizeof(config),
        "{\"architectures\":[\"%s\"],\"hidden_size\":16,\"intermediate_size\":32,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
        "\"head_dim\":8,\"vocab_size\":64,\"max_position_embeddings\":128,"
        "\"tie_word_embeddings\":%s,\"eos_token_id\":[1,2],\"rope_scaling\":{\"type\":\"yarn\","
        "\"factor\":2.0,\"original_max_position_embeddings\":64}}",
        architecture, is_tied ? "true" : "false");
    folder_write_text(folder, "config.json", config);

    header = (struct tiny_header){.wrong_name = wrong_name, .wrong_rows = wrong_rows};
    header.text[header.used++] = '{';
    tiny_add_all(&header, tiny_llama, TINY_LLAMA);
    if (strcmp(family, "qwen2") == 0)
        tiny_add_all(&header, tiny_qwen2_extra, TINY_QWEN2_EXTRA);
    if (strcmp(family, "qwen3") == 0)
        tiny_add_all(&header, tiny_qwen3_extra, TINY_QWEN3_EXTRA);
    header.text[header.used++] = '}';
    header.text[header.used] = '\0';
    safetensors_write(folder, "model.safetensors", header.text, header.data_bytes);
}

#endif
