/* Profiles are files that people edit and move between models: what was written reads back, and
 * what does not fit is refused by name. */
#include "tests/support/check.h"
#include "tests/support/folder.h"

#include "model/model_config.h"
#include "model/profile.h"
#include "model/weight_files.h"

#include <math.h>
#include <sys/stat.h>

enum { LAYERS = 3, KV_HEADS = 2, POINTS = 4, LENGTHS = 2 };

static const char fingerprint[] = "0123456789abcdef";

static void fill(struct profile *profile)
{
    static const float shares[POINTS] = {0.05F, 0.2F, 0.5F, 1.0F};
    static const int64_t lengths[LENGTHS] = {8192, 32768};
    uint32_t seed = 1;

    *profile = (struct profile){.layers = LAYERS,
                                .kv_heads = KV_HEADS,
                                .window_tokens = 1024,
                                .chunk_tokens = 512,
                                .calibration_tokens = 99,
                                .points = POINTS,
                                .lengths = LENGTHS};
    memcpy(profile->fingerprint, fingerprint, sizeof(fingerprint));
    memcpy(profile->share, shares, sizeof(shares));
    memcpy(profile->length, lengths, sizeof(lengths));
    assert_int_equal(profile_allocate(profile, true), TCA_OK);
    for (int table = 0; table < PROFILE_TABLES; table++)
        for (int i = 0; i < LENGTHS * LAYERS * KV_HEADS * POINTS; i++) {
            seed = seed * 1664525U + 1013904223U;
            profile->mass[table][i] = (float)(seed >> 8) / 16777216.0F;
        }
    for (int i = 0; i < LAYERS * KV_HEADS; i++)
        profile->tca[i] = (struct profile_tca){.mu = (float)i, .sigma = 0.5F + (float)i};
}

static char *text_of(const struct profile *profile)
{
    struct bytes text = {0};

    assert_int_equal(profile_write(profile, &text), TCA_OK);
    assert_int_equal(bytes_append(&text, "", 1), TCA_OK);
    return (char *)text.data;
}

static enum tca_status open_text(const char *text, struct profile **profile,
                                 struct tca_error *error)
{
    struct folder folder;
    char path[128];
    enum tca_status status;

    folder_create(&folder);
    folder_write_text(&folder, "tca-profile.json", text);
    snprintf(path, sizeof(path), "%s/tca-profile.json", folder.path);
    status = profile_open(path, fingerprint, LAYERS, KV_HEADS, profile, error);
    folder_destroy(&folder);
    return status;
}

static void what_was_written_reads_back(void **state)
{
    struct profile written, *read = NULL;
    struct tca_error error;
    char *text;

    (void)state;
    fill(&written);
    text = text_of(&written);
    assert_int_equal(open_text(text, &read, &error), TCA_OK);
    assert_int_equal(read->points, POINTS);
    assert_int_equal(read->lengths, LENGTHS);
    assert_int_equal(read->length[1], 32768);
    assert_int_equal(read->window_tokens, 1024);
    assert_int_equal(read->chunk_tokens, 512);
    assert_int_equal(strlen(read->id), PROFILE_ID_BYTES - 1);
    for (int table = 0; table < PROFILE_TABLES; table++)
        for (int i = 0; i < LENGTHS * LAYERS * KV_HEADS * POINTS; i++)
            assert_true(fabsf(read->mass[table][i] - written.mass[table][i]) <= 1e-6F);
    for (int i = 0; i < LAYERS * KV_HEADS; i++) {
        assert_true(read->tca[i].mu == written.tca[i].mu);
        assert_true(read->tca[i].sigma == written.tca[i].sigma);
    }
    profile_close(read);
    profile_deinit(&written);
    free(text);
}

static void another_models_profile_is_refused(void **state)
{
    struct profile written, *read = NULL;
    struct tca_error error;
    char *text;

    (void)state;
    fill(&written);
    written.fingerprint[0] = 'f';
    text = text_of(&written);
    assert_int_equal(open_text(text, &read, &error), TCA_ERR_PRECONDITION);
    assert_non_null(strstr(error.text, "run tca-calibrate"));
    free(text);
    written.fingerprint[0] = '0';
    written.layers = LAYERS - 1;
    text = text_of(&written);
    assert_int_equal(open_text(text, &read, &error), TCA_ERR_PRECONDITION);
    written.layers = LAYERS;
    profile_deinit(&written);
    free(text);
}

/* Replace the first `from` of the text by `to`, of the same length or shorter. */
static void replace(char *text, const char *from, const char *to)
{
    char *at = strstr(text, from);

    assert_non_null(at);
    memset(at, ' ', strlen(from));
    memcpy(at, to, strlen(to));
}

static void damaged_files_are_refused_by_key(void **state)
{
    static const struct {
        const char *from, *to, *key;
    } damages[] = {
        {"tca-profile-1", "tca-profile-9", "format"},
        {"0.05, 0.2", "0.2,  0.2", "shares"},
        {"0.5, 1]", "0.5, .9]", NULL},
        {"[8192, 32768]", "[8192, 8192 ]", "lengths"},
        {"\"window_tokens\": 1024", "\"window_tokens\": -1  ", "window_tokens"},
        {"\"chunk_tokens\": 512", "\"chunk_tokens\": 0  ", "chunk_tokens"},
        {"\"prefill\"", "\"refill\" ", "prefill"},
        {"\"question\": [", "\"question\": {", NULL},
        {"[0, 0.5]", "[0, 0]", "tca"},
    };
    struct profile written, *read = NULL;
    struct tca_error error;

    (void)state;
    fill(&written);
    for (size_t i = 0; i < sizeof(damages) / sizeof(*damages); i++) {
        char *text = text_of(&written);

        replace(text, damages[i].from, damages[i].to);
        assert_int_equal(open_text(text, &read, &error), TCA_ERR_INVALID);
        if (damages[i].key != NULL)
            assert_non_null(strstr(error.text, damages[i].key));
        free(text);
    }
    profile_deinit(&written);
}

static void saving_replaces_the_file_as_a_whole(void **state)
{
    struct profile written, *read = NULL;
    struct tca_error error;
    struct folder folder;
    char path[128];

    (void)state;
    fill(&written);
    folder_create(&folder);
    snprintf(path, sizeof(path), "%s/tca-profile.json", folder.path);
    for (int i = 0; i < 2; i++) { /* a new file, then an old one */
        written.window_tokens = 100 + i;
        assert_int_equal(profile_save(&written, path, &error), TCA_OK);
        assert_int_equal(profile_open(path, fingerprint, LAYERS, KV_HEADS, &read, &error), TCA_OK);
        assert_int_equal(read->window_tokens, 100 + i);
        profile_close(read);
    }
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0); /* nothing that a file can replace */
    assert_int_equal(profile_save(&written, path, &error), TCA_ERR_IO);
    assert_non_null(strstr(error.text, "tca-profile.json"));
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(folder.path), 0); /* no other file was left */
    assert_int_equal(profile_save(&written, path, &error), TCA_ERR_IO);
    profile_deinit(&written);
}

static void every_truncation_is_refused(void **state)
{
    struct profile written, *read = NULL;
    struct tca_error error;
    char *text;

    (void)state;
    fill(&written);
    text = text_of(&written);
    for (size_t bytes = strlen(text) - 2; bytes > 0; bytes -= bytes > 37 ? 37 : bytes) {
        text[bytes] = '\0';
        assert_int_equal(open_text(text, &read, &error), TCA_ERR_INVALID);
    }
    profile_deinit(&written);
    free(text);
}

static void the_shipped_profile_fits_its_model(void **state)
{
    char folder[256], path[300], model[WEIGHT_FINGERPRINT_BYTES];
    struct weight_files *files;
    struct model_config config;
    struct profile *read;
    struct tca_error error;

    (void)state;
    snprintf(folder, sizeof(folder), "%s/models/needle-9m", getenv("TCA_SOURCE"));
    snprintf(path, sizeof(path), "%s/tca-profile.json", folder);
    assert_int_equal(model_config_read(folder, &config, &error), TCA_OK);
    assert_int_equal(weight_files_open(folder, &files, &error), TCA_OK);
    assert_int_equal(weight_files_fingerprint(files, model), TCA_OK);
    weight_files_close(files);
    assert_int_equal(profile_open(path, model, config.layers, config.kv_heads, &read, &error),
                     TCA_OK);
    assert_int_equal(read->window_tokens, 1024);
    assert_int_equal(read->length[read->lengths - 1], 131072);
    assert_non_null(read->tca);
    profile_close(read);
}

static void curves_blend_in_the_logarithm_of_the_length(void **state)
{
    struct profile profile;
    float low[POINTS], high[POINTS], middle[POINTS], beyond[POINTS], below[POINTS];

    (void)state;
    fill(&profile);
    profile_curve(&profile, PROFILE_QUESTION, 1, 1, 8192, low);
    profile_curve(&profile, PROFILE_QUESTION, 1, 1, 32768, high);
    profile_curve(&profile, PROFILE_QUESTION, 1, 1, 16384, middle);
    profile_curve(&profile, PROFILE_QUESTION, 1, 1, 1000000, beyond);
    profile_curve(&profile, PROFILE_QUESTION, 1, 1, 100, below);
    for (int i = 0; i < POINTS; i++) {
        const size_t at = (size_t)((1 * KV_HEADS + 1) * POINTS + i);

        assert_true(low[i] == profile.mass[PROFILE_QUESTION][at]);
        assert_true(high[i] == profile.mass[PROFILE_QUESTION][LAYERS * KV_HEADS * POINTS + at]);
        assert_true(fabsf(middle[i] - (low[i] + high[i]) / 2.0F) < 1e-6F);
        assert_true(beyond[i] == high[i]);
        assert_true(below[i] == low[i]);
    }
    profile_deinit(&profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_reads_back),
        cmocka_unit_test(another_models_profile_is_refused),
        cmocka_unit_test(damaged_files_are_refused_by_key),
        cmocka_unit_test(saving_replaces_the_file_as_a_whole),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(the_shipped_profile_fits_its_model),
        cmocka_unit_test(curves_blend_in_the_logarithm_of_the_length),
    };
    return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
