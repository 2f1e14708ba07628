#include "tests/unit/worker/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void config_path(const char *folder, char path_out[96])
{
    snprintf(path_out, 96, "%s/config.json", folder);
}

enum { HEAD_DIM = 16 };

static void make(const char *family, int kv_heads, int head_dim, int positions, char folder_out[64])
{
    char path[96];
    const char *architecture = strcmp(family, "qwen2") == 0   ? "Qwen2ForCausalLM"
                               : strcmp(family, "qwen3") == 0 ? "Qwen3ForCausalLM"
                                                              : "LlamaForCausalLM";
    FILE *file;

    snprintf(folder_out, 64, "/tmp/tca-tiny-XXXXXX");
    if (mkdtemp(folder_out) == NULL)
        abort();
    config_path(folder_out, path);
    file = fopen(path, "w");
    if (file == NULL)
        abort();
    fprintf(file,
            "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"hidden_size\": 64, "
            "\"intermediate_size\": 128, \"num_hidden_layers\": 2, \"num_attention_heads\": 8, "
            "\"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d, "
            "\"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-5, \"max_position_embeddings\": %d, "
            "\"tie_word_embeddings\": true, \"hidden_act\": \"silu\", \"eos_token_id\": 2}\n",
            architecture, family, kv_heads, head_dim, TINY_VOCAB, positions);
    fclose(file);
}

void tiny_model_make(const char *family, char folder_out[64])
{
    make(family, 4, HEAD_DIM, TINY_POSITIONS, folder_out);
}

void tiny_model_make_long(const char *family, int positions, char folder_out[64])
{
    make(family, 4, HEAD_DIM, positions, folder_out);
}

void tiny_model_make_heads(int kv_heads, int positions, char folder_out[64])
{
    make("llama", kv_heads, HEAD_DIM, positions, folder_out);
}

void tiny_model_make_wide(int kv_heads, int head_dim, int positions, char folder_out[64])
{
    make("llama", kv_heads, head_dim, positions, folder_out);
}

void tiny_model_remove(const char *folder)
{
    char path[96];

    config_path(folder, path);
    unlink(path);
    rmdir(folder);
}
