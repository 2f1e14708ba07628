#include "tests/support/check.h"
#include "tests/support/folder.h"

#include "model/model_config.h"

enum { CONFIG_BYTES = 4096 };

struct field {
    const char *key, *value;
};

/* The least config that is accepted. */
static const struct field base[] = {
    {"architectures", "[\"LlamaForCausalLM\"]"},
    {"hidden_size", "512"},
    {"intermediate_size", "1024"},
    {"num_hidden_layers", "3"},
    {"num_attention_heads", "8"},
    {"vocab_size", "1000"},
    {"max_position_embeddings", "2048"},
};

/* The base with `changes` (at most `count`, ended by a NULL key): a NULL value drops a key. */
static enum tca_status read_changed(const struct folder *folder, const struct field *changes,
                                    size_t count, struct model_config *config,
                                    struct tca_error *error)
{
    char text[CONFIG_BYTES] = "{\"unknown\": {\"key\": [1]}";
    size_t used = strlen(text);

    for (size_t i = 0; i < sizeof(base) / sizeof(base[0]); i++) {
        const char *value = base[i].value;

        for (size_t j = 0; j < count && changes[j].key != NULL; j++)
            if (strcmp(changes[j].key, base[i].key) == 0)
                value = NULL;
        if (value != NULL)
            used += (size_t)snprintf(text + used, sizeof(text) - used, ", \"%s\": %s", base[i].key,
                                     value);
    }
    for (size_t i = 0; i < count && changes[i].key != NULL; i++)
        if (changes[i].value != NULL)
            used += (size_t)snprintf(text + used, sizeof(text) - used, ", \"%s\": %s",
                                     changes[i].key, changes[i].value);
    snprintf(text + used, sizeof(text) - used, "}");
    folder_write_text(folder, "config.json", text);
    error->text[0] = '\0';
    return model_config_read(folder->path, config, error);
}

static void assert_read(const struct folder *folder, const struct field *changes, size_t count,
                        struct model_config *config)
{
    struct tca_error error;

    if (read_changed(folder, changes, count, config, &error) != TCA_OK)
        fail_msg("%s", error.text);
}

#define ASSERT_READ(folder, changes, config)                                                       \
    assert_read(folder, changes, sizeof(changes) / sizeof((changes)[0]), config)

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", text, part);
}

static void llama_defaults_are_those_of_transformers(void **state)
{
    struct model_config config;

    ASSERT_READ(*state, ((const struct field[]){{NULL, NULL}}), &config);
    assert_string_equal(config.family, "llama");
    assert_int_equal(config.hidden, 512);
    assert_int_equal(config.layers, 3);
    assert_int_equal(config.q_heads, 8);
    assert_int_equal(config.kv_heads, 8);
    assert_int_equal(config.head_dim, 64);
    assert_int_equal(config.ffn, 1024);
    assert_int_equal(config.vocab, 1000);
    assert_int_equal(config.max_positions, 2048);
    assert_true(config.rms_eps == 1e-6F);
    assert_int_equal(config.rope.type, ROPE_DEFAULT);
    assert_true(config.rope.theta == 10000.0);
    assert_false(config.has_qkv_bias);
    assert_false(config.has_qk_norm);
    assert_false(config.has_tied_embeddings);
    assert_int_equal(config.end_tokens, 0);
    assert_int_equal(config.bos_token, -1);
}

static void every_family_is_read(void **state)
{
    static const struct field qwen2[] = {{"architectures", "[\"Qwen2ForCausalLM\"]"},
                                         {"num_key_value_heads", "2"},
                                         {"use_sliding_window", "false"},
                                         {"sliding_window", "4096"},
                                         {"layer_types", "[\"full_attention\"]"},
                                         {"bos_token_id", "5"}};
    static const struct field qwen3[] = {{"architectures", "[\"Qwen3ForCausalLM\"]"},
                                         {"num_key_value_heads", "4"},
                                         {"tie_word_embeddings", "true"},
                                         {"rms_norm_eps", "1e-05"},
                                         {"head_dim", "null"}};
    struct model_config config;

    ASSERT_READ(*state, qwen2, &config);
    assert_string_equal(config.family, "qwen2");
    assert_true(config.has_qkv_bias && !config.has_qk_norm);
    assert_int_equal(config.kv_heads, 2);
    assert_int_equal(config.head_dim, 64);
    assert_int_equal(config.bos_token, 5);

    ASSERT_READ(*state, qwen3, &config);
    assert_string_equal(config.family, "qwen3");
    assert_true(!config.has_qkv_bias && config.has_qk_norm && config.has_tied_embeddings);
    assert_int_equal(config.head_dim, 128); /* not hidden / heads */
    assert_true(config.rms_eps == 1e-5F);
}

static void end_tokens_come_from_the_generation_config_first(void **state)
{
    static const struct field one[] = {{"eos_token_id", "7"}};
    struct folder *folder = *state;
    struct model_config config;

    ASSERT_READ(folder, one, &config);
    assert_int_equal(config.end_tokens, 1);
    assert_int_equal(config.end_token[0], 7);

    folder_write_text(folder, "generation_config.json",
                      "{\"eos_token_id\": [8, 9], \"temperature\": 0.6}");
    ASSERT_READ(folder, one, &config);
    assert_int_equal(config.end_tokens, 2);
    assert_int_equal(config.end_token[1], 9);

    folder_write_text(folder, "generation_config.json", "{\"temperature\": 0.6}");
    ASSERT_READ(folder, one, &config);
    assert_int_equal(config.end_tokens, 1);
}

static void damaged_files_are_refused(void **state)
{
    struct folder *folder = *state;
    struct model_config config;
    struct tca_error error;

    assert_int_equal(model_config_read(folder->path, &config, &error), TCA_ERR_NOT_FOUND);
    assert_contains(error.text, "config.json");
    folder_write_text(folder, "config.json", "{\"hidden_size\": ");
    assert_int_equal(model_config_read(folder->path, &config, &error), TCA_ERR_INVALID);
    folder_write_text(folder, "config.json", "[]");
    assert_int_equal(model_config_read(folder->path, &config, &error), TCA_ERR_INVALID);
    assert_contains(error.text, "config.json");

    ASSERT_READ(folder, ((const struct field[]){{NULL, NULL}}), &config);
    folder_write_text(folder, "generation_config.json", "{");
    assert_int_equal(model_config_read(folder->path, &config, &error), TCA_ERR_INVALID);
    assert_contains(error.text, "generation_config.json");
    folder_write_text(folder, "generation_config.json", "{\"eos_token_id\": \"x\"}");
    assert_int_equal(model_config_read(folder->path, &config, &error), TCA_ERR_INVALID);
    assert_contains(error.text, "eos_token_id");
}

#define ROPE(text)                                                                                 \
    {                                                                                              \
        "rope_scaling", text                                                                       \
    }
#define SEVENTEEN "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"

static const struct wrong {
    struct field changes[2];
    enum tca_status status;
    const char *reason; /* part of the text, beside the first key */
} wrongs[] = {
    /* Not known to this code. */
    {{{"architectures", "[\"MistralForCausalLM\"]"}}, TCA_ERR_UNSUPPORTED, "MistralForCausalLM"},
    {{{"hidden_act", "\"gelu\""}}, TCA_ERR_UNSUPPORTED, "silu"},
    {{{"mlp_bias", "true"}}, TCA_ERR_UNSUPPORTED, "allowed: false"},
    {{{"attention_bias", "true"}}, TCA_ERR_UNSUPPORTED, "allowed: false"},
    {{{"use_sliding_window", "true"}}, TCA_ERR_UNSUPPORTED, "allowed: false"},
    {{{"layer_types", "[\"full_attention\", \"sliding_attention\"]"}},
     TCA_ERR_UNSUPPORTED,
     "sliding_attention"},
    {{{"quantization_config", "{\"bits\": 4}"}}, TCA_ERR_UNSUPPORTED, "quantised"},
    {{{"partial_rotary_factor", "0.5"}}, TCA_ERR_UNSUPPORTED, "0.5"},
    {{ROPE("{\"type\": \"dynamic\", \"factor\": 2}")}, TCA_ERR_UNSUPPORTED, "dynamic"},
    {{ROPE("{\"rope_type\": \"longrope\"}")}, TCA_ERR_UNSUPPORTED, "longrope"},
    {{ROPE("{\"partial_rotary_factor\": 0.25}")}, TCA_ERR_UNSUPPORTED, "0.25"},
    {{ROPE("{}"), {"rope_parameters", "{}"}}, TCA_ERR_UNSUPPORTED, "one of them"},
    {{{"head_dim", "36"}}, TCA_ERR_UNSUPPORTED, "multiples of 8 up to 256"},
    {{{"head_dim", "264"}}, TCA_ERR_UNSUPPORTED, "multiples of 8 up to 256"},
    {{{"eos_token_id", SEVENTEEN}}, TCA_ERR_UNSUPPORTED, "at most 16"},
    /* Missing, of the wrong type, or out of range. */
    {{{"architectures", NULL}}, TCA_ERR_INVALID, "missing"},
    {{{"architectures", "[]"}}, TCA_ERR_INVALID, "empty"},
    {{{"architectures", "\"LlamaForCausalLM\""}}, TCA_ERR_INVALID, "array"},
    {{{"hidden_size", NULL}}, TCA_ERR_INVALID, "missing"},
    {{{"hidden_size", "0"}}, TCA_ERR_INVALID, "from 1 to 131072"},
    {{{"hidden_size", "131073"}}, TCA_ERR_INVALID, "from 1 to 131072"},
    {{{"hidden_size", "\"512\""}}, TCA_ERR_INVALID, "number"},
    {{{"hidden_size", "512.5"}}, TCA_ERR_INVALID, "integer"},
    {{{"num_hidden_layers", "1025"}}, TCA_ERR_INVALID, "from 1 to 1024"},
    {{{"intermediate_size", "-1"}}, TCA_ERR_INVALID, "from 1 to 1048576"},
    {{{"vocab_size", "99999999999"}}, TCA_ERR_INVALID, "from 1 to 4194304"},
    {{{"max_position_embeddings", "16777217"}}, TCA_ERR_INVALID, "from 1 to 16777216"},
    {{{"num_attention_heads", "1025"}}, TCA_ERR_INVALID, "from 1 to 1024"},
    {{{"num_key_value_heads", "3"}}, TCA_ERR_INVALID, "num_attention_heads = 8"},
    {{{"num_key_value_heads", "16"}}, TCA_ERR_INVALID, "num_attention_heads = 8"},
    {{{"head_dim", "0"}}, TCA_ERR_INVALID, "from 1"},
    {{{"head_dim", NULL}, {"hidden_size", "500"}}, TCA_ERR_INVALID, "no multiple"},
    {{{"rms_norm_eps", "0"}}, TCA_ERR_INVALID, "1e-12 to 0.1"},
    {{{"rms_norm_eps", "1"}}, TCA_ERR_INVALID, "1e-12 to 0.1"},
    {{{"tie_word_embeddings", "1"}}, TCA_ERR_INVALID, "true or false"},
    {{{"eos_token_id", "1000"}}, TCA_ERR_INVALID, "from 0 to 999"},
    {{{"eos_token_id", "[1, null]"}}, TCA_ERR_INVALID, "number"},
    {{{"bos_token_id", "-2"}}, TCA_ERR_INVALID, "from 0 to 999"},
    {{{"rope_theta", "1"}}, TCA_ERR_INVALID, "from 1.001"},
    {{{"rope_theta", "1e30"}}, TCA_ERR_INVALID, "to 1e+12"},
    {{ROPE("[]")}, TCA_ERR_INVALID, "object"},
    {{ROPE("{\"type\": 3}")}, TCA_ERR_INVALID, "string"},
    {{ROPE("{\"type\": \"linear\"}")}, TCA_ERR_INVALID, "factor"},
    {{ROPE("{\"type\": \"linear\", \"factor\": 0.5}")}, TCA_ERR_INVALID, "from 1"},
    {{ROPE("{\"type\": \"yarn\"}")}, TCA_ERR_INVALID, "factor"},
    {{ROPE("{\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": 1, \"beta_slow\": 2}")},
     TCA_ERR_INVALID,
     "beta_slow"},
    {{ROPE("{\"type\": \"yarn\", \"factor\": 2, \"original_max_position_embeddings\": 0}")},
     TCA_ERR_INVALID,
     "original_max_position_embeddings"},
    {{ROPE("{\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1}")},
     TCA_ERR_INVALID,
     "high_freq_factor"},
    {{ROPE("{\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
           "\"high_freq_factor\": 4}")},
     TCA_ERR_INVALID,
     "greater than low_freq_factor"},
};

static void wrong_values_are_refused_by_file_key_and_range(void **state)
{
    struct model_config config;
    struct tca_error error;

    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        enum tca_status status = read_changed(*state, wrongs[i].changes, 2, &config, &error);

        if (status != wrongs[i].status)
            fail_msg("%s = %s: status %d, expected %d (%s)", wrongs[i].changes[0].key,
                     wrongs[i].changes[0].value, status, wrongs[i].status, error.text);
        assert_contains(error.text, "/config.json: ");
        assert_contains(error.text, wrongs[i].changes[0].key);
        assert_contains(error.text, wrongs[i].reason);
    }
}

static void yarn_factor_may_be_the_ratio_of_the_lengths(void **state)
{
    static const struct field null_factor[] = {
        {"rope_parameters", "{\"rope_type\": \"yarn\", \"factor\": null, \"rope_theta\": 5e3, "
                            "\"original_max_position_embeddings\": 512}"}};
    static const struct field outside[] = {{"rope_scaling", "{\"type\": \"yarn\", \"factor\": 3}"},
                                           {"original_max_position_embeddings", "256"}};
    struct model_config config;

    ASSERT_READ(*state, null_factor, &config);
    assert_true(config.rope.factor == 4.0);
    assert_true(config.rope.theta == 5e3);
    assert_int_equal(config.rope.original_max_positions, 512);
    ASSERT_READ(*state, outside, &config);
    assert_int_equal(config.rope.original_max_positions, 256);
}

/* As published: SmolLM2-135M has 134,515,008 parameters, Qwen2.5-0.5B 494,032,768, Qwen3-0.6B
 * 596,049,920. */
static void sizes_follow_from_the_config(void **state)
{
    const struct model_config smollm = {.hidden = 576,
                                        .layers = 30,
                                        .q_heads = 9,
                                        .kv_heads = 3,
                                        .head_dim = 64,
                                        .ffn = 1536,
                                        .vocab = 49152,
                                        .has_tied_embeddings = true};
    const struct model_config qwen2 = {.hidden = 896,
                                       .layers = 24,
                                       .q_heads = 14,
                                       .kv_heads = 2,
                                       .head_dim = 64,
                                       .ffn = 4864,
                                       .vocab = 151936,
                                       .has_qkv_bias = true,
                                       .has_tied_embeddings = true};
    const struct model_config qwen3 = {.hidden = 1024,
                                       .layers = 28,
                                       .q_heads = 16,
                                       .kv_heads = 8,
                                       .head_dim = 128,
                                       .ffn = 3072,
                                       .vocab = 151936,
                                       .has_qk_norm = true,
                                       .has_tied_embeddings = true};
    struct model_config largest = {.hidden = MODEL_HIDDEN_MAX,
                                   .layers = MODEL_LAYERS_MAX,
                                   .q_heads = MODEL_HEADS_MAX,
                                   .kv_heads = MODEL_HEADS_MAX,
                                   .head_dim = MODEL_HEAD_DIM_MAX,
                                   .ffn = MODEL_FFN_MAX,
                                   .vocab = MODEL_VOCAB_MAX};

    (void)state;
    assert_int_equal(model_config_parameters(&smollm), 134515008);
    assert_int_equal(model_config_parameters(&qwen2), 494032768);
    assert_int_equal(model_config_parameters(&qwen3), 596049920);
    assert_int_equal(model_config_kv_bytes(&smollm, 3), 23040);
    assert_true(model_config_parameters(&largest) > 0);
    assert_true(model_config_kv_bytes(&largest, MODEL_HEADS_MAX) <=
                INT64_MAX / MODEL_POSITIONS_MAX);
}

#define CONFIG_TEST(function)                                                                      \
    cmocka_unit_test_setup_teardown(function, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONFIG_TEST(llama_defaults_are_those_of_transformers),
        CONFIG_TEST(every_family_is_read),
        CONFIG_TEST(end_tokens_come_from_the_generation_config_first),
        CONFIG_TEST(damaged_files_are_refused),
        CONFIG_TEST(wrong_values_are_refused_by_file_key_and_range),
        CONFIG_TEST(yarn_factor_may_be_the_ratio_of_the_lengths),
        CONFIG_TEST(sizes_follow_from_the_config),
    };
    return cmocka_run_group_tests_name("model_config", tests, NULL, NULL);
}
