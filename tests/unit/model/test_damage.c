/* Damages a right folder at random, thousands of times: opening it and reading every tensor never
 * crashes (the sanitizers' builds see more), and a refusal always says why. */
#include "tests/support/check.h"
#include "tests/support/folder.h"
#include "tests/support/numbers.h"

#include "model/model_tensors.h"
#include "model/rope.h"
#include "model/shard_plan.h"
#include "tests/unit/model/tiny_folder.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 4000, FILE_BYTES_MAX = 1 << 18 };

struct content {
    uint8_t bytes[FILE_BYTES_MAX];
    size_t size;
};

static void read_content(const struct folder *folder, const char *name, struct content *content)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    file = fopen(path, "re");
    assert_non_null(file);
    content->size = fread(content->bytes, 1, sizeof(content->bytes), file);
    assert_true(content->size < sizeof(content->bytes));
    fclose(file);
}

/* Flip bits, overwrite a digit or a byte, or cut the end; mostly in the first `head_bytes`. */
static void damage(struct content *content, size_t head_bytes, uint64_t *random)
{
    const int changes = 1 + (int)(random_bits(random) % 3);

    for (int i = 0; i < changes; i++) {
        size_t at = random_bits(random) % head_bytes;

        switch (random_bits(random) % 5) {
        case 0:
            content->bytes[at] ^= (uint8_t)(1U << random_bits(random) % 8);
            break;
        case 1:
            content->bytes[at] = (uint8_t)random_bits(random);
            break;
        case 2: /* the next digit becomes another: valid JSON with wrong numbers */
            while (at < head_bytes && (content->bytes[at] < '0' || content->bytes[at] > '9'))
                at++;
            if (at < head_bytes)
                content->bytes[at] = (uint8_t)('0' + random_bits(random) % 10);
            break;
        case 3: /* a piece moves */
            memmove(content->bytes + at, content->bytes + at / 2, (head_bytes - at) / 2);
            break;
        default:
            if (random_bits(random) % 8 == 0)
                content->size = random_bits(random) % (content->size + 1);
            break;
        }
    }
}

static void read_all(const struct model_config *config, const struct weight_files *files)
{
    static uint16_t part[64 * 64];
    static float part_f32[64 * 64];

    for (int i = 0; i < MODEL_TENSOR_COUNT; i++) {
        struct weight_tensor tensor;
        int64_t rows, cols;

        if (model_tensor_find(config, files, (enum model_tensor)i, 0, &tensor, NULL) != TCA_OK)
            continue;
        rows = tensor.dimensions == 1 ? 1 : tensor.shape[0];
        cols = tensor.dimensions == 1 ? tensor.shape[0] : tensor.shape[1];
        for (int64_t row = 0; row < rows; row++)
            for (int64_t col = 0; col < cols; col += 64) {
                int64_t width = cols - col < 64 ? cols - col : 64;

                weight_tensor_read_bf16(&tensor, row, 1, col, width, part);
                weight_tensor_read_f32(&tensor, row, 1, col, width, part_f32);
            }
    }
}

static void open_and_read(const struct folder *folder, int *accepted)
{
    char fingerprint[WEIGHT_FINGERPRINT_BYTES];
    float inv_freq[MODEL_HEAD_DIM_MAX / 2], magnitude;
    struct tca_error error = {""};
    struct model_config config;
    struct weight_files *files;
    struct shard shard;

    if (model_config_read(folder->path, &config, &error) != TCA_OK) {
        assert_true(error.text[0] != '\0');
        return;
    }
    rope_frequencies(&config.rope, config.head_dim, config.max_positions, inv_freq, &magnitude);
    shard_plan_make(&config, 0, 2, &shard, NULL);
    assert_true(model_config_parameters(&config) > 0);
    if (weight_files_open(folder->path, &files, &error) != TCA_OK) {
        assert_true(error.text[0] != '\0');
        return;
    }
    assert_int_equal(weight_files_fingerprint(files, fingerprint), TCA_OK);
    if (model_check_tensors(&config, files, &error) == TCA_OK)
        *accepted += 1;
    else
        assert_true(error.text[0] != '\0');
    read_all(&config, files);
    weight_files_close(files);
}

static void damage_file(const char *name, size_t head_bytes)
{
    static struct content right, wrong;
    uint64_t random = 88172645463325252ULL;
    struct folder folder;
    int accepted = 0;

    folder_create(&folder);
    tiny_folder_write(&folder, "qwen2", 0, NULL, 0);
    read_content(&folder, name, &right);
    for (int round = 0; round < ROUNDS; round++) {
        wrong = right;
        damage(&wrong, head_bytes < right.size ? head_bytes : right.size, &random);
        folder_write(&folder, name, wrong.bytes, wrong.size);
        open_and_read(&folder, &accepted);
    }
    /* Some damage is harmless, most is not: otherwise this test tests nothing. */
    assert_true(accepted > 0 && accepted < ROUNDS / 2);
    folder_destroy(&folder);
}

static void damaged_weights_never_crash(void **state)
{
    (void)state;
    damage_file("model.safetensors", 3000);
}

static void damaged_config_never_crashes(void **state)
{
    (void)state;
    damage_file("config.json", SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_weights_never_crash),
        cmocka_unit_test(damaged_config_never_crashes),
    };
    return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
