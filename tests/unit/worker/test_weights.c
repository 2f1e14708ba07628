/* Loading a folder's tensors: which ones every family must have, and what is said of one that is
 * wrong. */
#include "tests/support/check.h"
#include "tests/support/folder.h"

#include "tests/unit/model/tiny_folder.h"
#include "worker/weights.h"

#include <stdlib.h>

/* TCA_OK: *is_tied_out says whether one matrix serves both ends. */
static enum tca_status load(const char *path, bool *is_tied_out, struct tca_error *error)
{
    struct device device = {.backend = kernel_backend_cpu()};
    struct model_config config;
    struct weight_files *files;
    struct weights *weights;
    struct shard shard;
    enum tca_status status;

    error->text[0] = '\0';
    if (model_config_read(path, &config, error) != TCA_OK ||
        shard_plan_make(&config, 0, 1, &shard, error) != TCA_OK ||
        weight_files_open(path, &files, error) != TCA_OK)
        fail_msg("%s", error->text);
    assert_int_equal(device.backend->queue_create(0, 1, &device.queue), TCA_OK);
    status = weights_create(&device, &config, &shard, files, &weights, error);
    if (status == TCA_OK) {
        *is_tied_out = weights->lm_head == weights->embedding;
        weights_destroy(weights);
    }
    device.backend->queue_destroy(device.queue);
    weight_files_close(files);
    return status;
}

static void expect_loaded(const struct folder *folder, bool is_tied)
{
    struct tca_error error;
    bool found_tied;

    if (load(folder->path, &found_tied, &error) != TCA_OK)
        fail_msg("%s", error.text);
    assert_int_equal(found_tied, is_tied);
}

static void expect_refused(const struct folder *folder, enum tca_status expected, const char *text)
{
    struct tca_error error;
    bool is_tied;
    enum tca_status status = load(folder->path, &is_tied, &error);

    if (status != expected || strcmp(error.text, text) != 0)
        fail_msg("status %d \"%s\", expected %d \"%s\"", status, error.text, expected, text);
}

static void whole_folders_of_every_family_load(void **state)
{
    static const char *const families[] = {"llama", "qwen2", "qwen3"};

    for (int i = 0; i < 3; i++) {
        tiny_folder_write(*state, families[i], 0, NULL, 0);
        expect_loaded(*state, false);
    }
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
        expect_refused(folder, TCA_ERR_NOT_FOUND, text);

        tiny_folder_write(folder, family, 0, name, 48);
        if (tensors[i].rows == 0)
            snprintf(text, sizeof(text), "model.safetensors: %s: shape [48, %d], expected [%d]",
                     name, tensors[i].cols, tensors[i].cols);
        else
            snprintf(text, sizeof(text), "model.safetensors: %s: shape [48, %d], expected [%d, %d]",
                     name, tensors[i].cols, tensors[i].rows, tensors[i].cols);
        expect_refused(folder, TCA_ERR_INVALID, text);
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
    struct folder *folder = *state;

    tiny_folder_write(folder, "llama", 1, "lm_head.weight", -1);
    expect_loaded(folder, true);
    /* One that is there all the same is ignored, whatever its shape. */
    tiny_folder_write(folder, "llama", 1, "lm_head.weight", 3);
    expect_loaded(folder, true);
}

#define WEIGHTS_TEST(function)                                                                     \
    cmocka_unit_test_setup_teardown(function, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WEIGHTS_TEST(whole_folders_of_every_family_load),
        WEIGHTS_TEST(every_missing_or_misshapen_tensor_is_named),
        WEIGHTS_TEST(tied_embeddings_need_no_output_matrix),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
