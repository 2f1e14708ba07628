/* Fails every allocation in turn: the status says so, nothing is handed out, and (the sanitizers'
 * builds see it) nothing leaks. */
#include "tests/support/check.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/folder.h"

#include "model/model_config.h"
#include "model/profile.h"
#include "model/weight_files.h"
#include "tests/unit/model/tiny_folder.h"

enum { ALLOCATIONS_MAX = 1000 };

static enum tca_status open_weights(const struct folder *folder, struct tca_error *error)
{
    char fingerprint[WEIGHT_FINGERPRINT_BYTES];
    struct weight_files *files = NULL;
    enum tca_status status = weight_files_open(folder->path, &files, error);

    if (status != TCA_OK) {
        assert_null(files);
        return status;
    }
    status = weight_files_fingerprint(files, fingerprint);
    weight_files_close(files);
    return status;
}

static enum tca_status read_config(const struct folder *folder, struct tca_error *error)
{
    struct model_config config;

    return model_config_read(folder->path, &config, error);
}

/* Of 1 layer of 1 KV head. */
static void write_profile(const struct folder *folder)
{
    struct profile profile = {.fingerprint = "f",
                              .layers = 1,
                              .kv_heads = 1,
                              .chunk_tokens = 1,
                              .calibration_tokens = 1,
                              .points = 2,
                              .share = {0.5F, 1.0F},
                              .lengths = 1,
                              .length = {1}};
    struct bytes text = {0};

    assert_int_equal(profile_allocate(&profile, false), TCA_OK);
    assert_int_equal(profile_write(&profile, &text), TCA_OK);
    folder_write(folder, "tca-profile.json", text.data, text.size);
    bytes_free(&text);
    profile_deinit(&profile);
}

static enum tca_status open_profile(const struct folder *folder, struct tca_error *error)
{
    struct profile *profile = NULL;
    enum tca_status status;
    char path[128];

    snprintf(path, sizeof(path), "%s/tca-profile.json", folder->path);
    status = profile_open(path, "f", 1, 1, &profile, error);
    assert_int_equal(profile != NULL, status == TCA_OK);
    assert_true(status == TCA_OK || strstr(error->text, "tca-profile.json") != NULL);
    profile_close(profile);
    return status;
}

static void fail_each(const struct folder *folder,
                      enum tca_status (*run)(const struct folder *, struct tca_error *))
{
    int failures = 0;

    for (int count = 0; count < ALLOCATIONS_MAX; count++) {
        struct tca_error error = {""};
        enum tca_status status;

        failing_alloc_after(count);
        status = run(folder, &error);
        if (!failing_alloc_stop()) {
            assert_int_equal(status, TCA_OK);
            assert_true(failures > 0);
            return;
        }
        failures++;
        assert_int_equal(status, TCA_ERR_NO_MEMORY);
    }
    fail_msg("more than %d allocations", ALLOCATIONS_MAX);
}

static void every_failed_allocation_becomes_a_status(void **state)
{
    struct folder folder;

    (void)state;
    folder_create(&folder);
    tiny_folder_write(&folder, "qwen3", 0, NULL, 0);
    fail_each(&folder, open_weights);
    fail_each(&folder, read_config);
    write_profile(&folder);
    fail_each(&folder, open_profile);

    safetensors_write(&folder, "one.st",
                      "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
    folder_delete(&folder, "model.safetensors");
    folder_write_text(&folder, "model.safetensors.index.json",
                      "{\"weight_map\":{\"a\":\"one.st\"}}");
    fail_each(&folder, open_weights);
    folder_destroy(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_becomes_a_status),
    };
    return cmocka_run_group_tests_name("no_memory", tests, NULL, NULL);
}
