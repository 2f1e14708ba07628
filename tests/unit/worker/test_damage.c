/* Damages a right folder at random, thousands of times: opening it and loading its weights as a
 * worker does never crashes (the sanitizers' builds see more), and a refusal always says why. */
#include "tests/support/check.h"
#include "tests/support/folder.h"
#include "tests/support/numbers.h"

#include "tests/unit/model/tiny_folder.h"
#include "worker/weights.h"

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

static void open_and_load(const struct folder *folder, const struct device *device, int *accepted)
{
    char fingerprint[WEIGHT_FINGERPRINT_BYTES];
    struct tca_error error = {""};
    struct model_config config;
    struct weight_files *files;
    struct weights *weights;
    struct shard shard;

    if (model_config_read(folder->path, &config, &error) != TCA_OK ||
        shard_plan_make(&config, 0, 1, &shard, &error) != TCA_OK ||
        weight_files_open(folder->path, &files, &error) != TCA_OK) {
        assert_true(error.text[0] != '\0');
        return;
    }
    assert_true(model_config_parameters(&config) > 0);
    assert_int_equal(weight_files_fingerprint(files, fingerprint), TCA_OK);
    if (weights_create(device, &config, &shard, files, &weights, &error) == TCA_OK) {
        *accepted += 1;
        weights_destroy(weights);
    } else {
        assert_true(error.text[0] != '\0');
    }
    weight_files_close(files);
}

static void damage_file(const char *name, size_t head_bytes)
{
    static struct content right, wrong;
    struct device device = {.backend = kernel_backend_cpu()};
    uint64_t random = 88172645463325252ULL;
    struct folder folder;
    int accepted = 0;

    assert_int_equal(device.backend->queue_create(0, 1, &device.queue), TCA_OK);
    folder_create(&folder);
    tiny_folder_write(&folder, "qwen2", 0, NULL, 0);
    read_content(&folder, name, &right);
    for (int round = 0; round < ROUNDS; round++) {
        wrong = right;
        damage(&wrong, head_bytes < right.size ? head_bytes : right.size, &random);
        folder_write(&folder, name, wrong.bytes, wrong.size);
        open_and_load(&folder, &device, &accepted);
    }
    /* Some damage is harmless, most is not: otherwise this test tests nothing. */
    assert_true(accepted > 0 && accepted < ROUNDS / 2);
    folder_destroy(&folder);
    device.backend->queue_destroy(device.queue);
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
