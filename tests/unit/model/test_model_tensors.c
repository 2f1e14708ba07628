#include "tests/support/check.h"
#include "tests/support/folder.h"

#include "model/model_tensors.h"
#include "tests/unit/model/tiny_folder.h"

#include <stdlib.h>

static int setup(void **state)
{
    struct folder *folder = malloc(sizeof(*folder));

    assert_non_null(folder);
    folder_create(folder);
    *state = folder;
    return 0;
}

static int teardown(void **state)
{
    folder_destroy(*state);
    free(*state);
    return 0;
}

static enum tca_status check_folder(const char *path, struct tca_error *error)
{
    struct model_config config;
    struct weight_files *files;
    enum tca_status status;

    error->text[0] = '\0';
    if (model_config_read(path, &config, error) != TCA_OK ||
        weight_files_open(path, &files, error) != TCA_OK)
        fail_msg("%s", error->text);
    status = model_check_tensors(&config, files, error);
    weight_files_close(files);
    return status;
}

static void expect(const struct folder *folder, enum tca_status expected, const char *text)
{
    struct tca_error error;
    enum tca_status status = check_folder(folder->path, &error);

    if (status != expected || strcmp(error.text, text) != 0)
        fail_msg("status %d \"%s\", expected %d \"%s\"", status, error.text, expected, text);
}

static void whole_folders_of_every_family_pass(void **state)
{
    static const char *const families[] = {"llama", "qwen2", "qwen3"};

    for (int i = 0; i < 3; i++) {
        tiny_folder_write(*state, families[i], 0, NULL, 0);
        expect(*state, TCA_OK, "");
    }
}

static void needle_9m_passes(void **state)
{
    const char *source = getenv("TCA_SOURCE");
    struct tca_error error;
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s/models/needle-9m", source != NULL ? source : ".");
    assert_int_equal(check_folder(path, &error), TCA_OK);
}

static void check_each(const struct folder *folder, const char *family,
                       const struct tiny_tensor *tensors, int count)
{
    char name[96], text[256];

    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s%s", tensors[i].is_layered ? "model.layers.1." : "",
                 tensors[i].name);
        tiny_folder_write(folder, family, 0, name, -1);
        snprintf(text, sizeof(text), "model.safetensors: tensor %s is missing", name);
        expect(folder, TCA_ERR_NOT_FOUND, text);

        tiny_folder_write(folder, family, 0, name, 48);
        if (tensors[i].rows == 0)
            snprintf(text, sizeof(text), "model.safetensors: %s: shape [48, %d], expected [%d]",
                     name, tensors[i].cols, tensors[i].cols);
        else
            snprintf(text, sizeof(text), "model.safetensors: %s: shape [48, %d], expected [%d, %d]",
                     name, tensors[i].cols, tensors[i].rows, tensors[i].cols);
        expect(folder, TCA_ERR_INVALID, text);
    }
}

static void every_missing_or_misshapen_tensor_is_named(void **state)
{
    check_each(*state, "llama", tiny_llama, TINY_LLAMA);
    check_each(*state, "qwen2", tiny_llama, TINY_LLAMA);
    check_each(*state, "qwen2", tiny_qwen2_extra, TINY_QWEN2_EXTRA);
    check_each(*state, "qwen3", tiny_qwen3_extra, TINY_QWEN3_EXTRA);
}

static void tied_embeddings_need_no_output_matrix(void **state)
{
    struct weight_tensor tensor;
    struct model_config config;
    struct weight_files *files;
    struct tca_error error;
    struct folder *folder = *state;

    tiny_folder_write(folder, "llama", 1, "lm_head.weight", -1);
    expect(folder, TCA_OK, "");
    /* One that is there all the same is ignored, whatever its shape. */
    tiny_folder_write(folder, "llama", 1, "lm_head.weight", 3);
    expect(folder, TCA_OK, "");
    assert_int_equal(model_config_read(folder->path, &config, &error), TCA_OK);
    assert_int_equal(weight_files_open(folder->path, &files, &error), TCA_OK);
    assert_int_equal(model_tensor_find(&config, files, MODEL_OUTPUT, 0, &tensor, &error), TCA_OK);
    assert_string_equal(tensor.name, "model.embed_tokens.weight");
    weight_files_close(files);
}

#define TENSORS_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TENSORS_TEST(whole_folders_of_every_family_pass),
        TENSORS_TEST(needle_9m_passes),
        TENSORS_TEST(every_missing_or_misshapen_tensor_is_named),
        TENSORS_TEST(tied_embeddings_need_no_output_matrix),
    };
    return cmocka_run_group_tests_name("model_tensors", tests, NULL, NULL);
}
