#include "tests/support/check.h"
#include "tests/support/folder.h"
#include "tests/support/safetensors_text.h"

#include "model/weight_files.h"

#include <sys/stat.h>

static const char single[] = "model.safetensors";
static const char index_file[] = "model.safetensors.index.json";

/* Two matrices, a vector, an empty one and one of a dtype that is not read. 36 bytes of data. */
static const char right_header[] =
    "{\"__metadata__\": {\"format\": \"pt\"},"
    "\"b\": {\"dtype\": \"F32\", \"shape\": [2, 2], \"data_offsets\": [12, 28]},"
    "\"a\": {\"dtype\": \"BF16\", \"shape\": [3, 2], \"data_offsets\": [0, 12]},"
    "\"empty\": {\"dtype\": \"F16\", \"shape\": [0, 7], \"data_offsets\": [28, 28]},"
    "\"ids\": {\"dtype\": \"I64\", \"shape\": [], \"data_offsets\": [28, 36]}}  ";

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", text, part);
}

static void assert_open_fails(const struct folder *folder, enum tca_status expected,
                              const char *reason)
{
    struct weight_files *files = NULL;
    struct tca_error error = {""};
    enum tca_status status = weight_files_open(folder->path, &files, &error);

    if (status != expected)
        fail_msg("status %d, expected %d: %s; %s", status, expected, error.text, reason);
    assert_null(files);
    assert_contains(error.text, reason);
}

static struct weight_files *open_right(const struct folder *folder)
{
    struct weight_files *files = NULL;
    struct tca_error error;

    if (weight_files_open(folder->path, &files, &error) != TCA_OK)
        fail_msg("%s", error.text);
    return files;
}

static void tensors_are_found_by_name_and_shape(void **state)
{
    struct weight_tensor tensor;
    struct weight_files *files;
    struct tca_error error;

    safetensors_write(*state, single, right_header, 36);
    files = open_right(*state);
    assert_int_equal(weight_files_find(files, "a", 3, 2, &tensor, &error), TCA_OK);
    assert_string_equal(tensor.name, "a");
    assert_string_equal(tensor.file, single);
    assert_int_equal(tensor.dtype, WEIGHT_BF16);
    assert_int_equal(tensor.dimensions, 2);
    assert_int_equal(tensor.shape[0], 3);
    assert_int_equal(((const uint8_t *)tensor.data)[0], 0);
    assert_int_equal(weight_files_find(files, "b", 2, 2, &tensor, &error), TCA_OK);
    assert_int_equal(((const uint8_t *)tensor.data)[15], 27);
    weight_files_close(files);
    weight_files_close(NULL);
}

static void wrong_expectations_are_named(void **state)
{
    struct weight_tensor tensor;
    struct weight_files *files;
    struct tca_error error;

    safetensors_write(*state, single, right_header, 36);
    files = open_right(*state);
    assert_int_equal(weight_files_find(files, "c", 1, 1, &tensor, &error), TCA_ERR_NOT_FOUND);
    assert_contains(error.text, "model.safetensors: tensor c is missing");
    assert_int_equal(weight_files_find(files, "a", 2, 3, &tensor, &error), TCA_ERR_INVALID);
    assert_contains(error.text, "model.safetensors: a: shape [3, 2], expected [2, 3]");
    assert_int_equal(weight_files_find(files, "a", 3, 3, &tensor, &error), TCA_ERR_INVALID);
    assert_int_equal(weight_files_find(files, "a", 0, 3, &tensor, &error), TCA_ERR_INVALID);
    assert_contains(error.text, "expected [3]");
    assert_int_equal(weight_files_find(files, "ids", 0, 1, &tensor, &error), TCA_ERR_INVALID);
    assert_contains(error.text, "0 dimensions");
    weight_files_close(files);

    safetensors_write(*state, single,
                      "{\"x\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
    files = open_right(*state);
    assert_int_equal(weight_files_find(files, "x", 0, 4, &tensor, &error), TCA_ERR_UNSUPPORTED);
    assert_contains(error.text, "dtype I8 is not supported, allowed: BF16, F16, F32");
    weight_files_close(files);
}

#define TENSOR(dtype, shape, offsets)                                                              \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(first, second)                                                                         \
    "{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" first "},"                          \
    "\"u\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" second "}}"

static const struct {
    const char *header;
    size_t data_bytes;
    const char *reason;
} wrong_headers[] = {
    {TENSOR("F32", "[2]", "[0,4]"), 4, "t.data_offsets hold 4 bytes"},
    {TENSOR("F32", "[2]", "[0,8]"), 4, "t.data_offsets[1] = 8 must be from 0 to 4"},
    {TENSOR("F32", "[2]", "[8,0]"), 8, "t.data_offsets[1] = 0 must be from 8 to 8"},
    {TENSOR("F32", "[2]", "[-1,7]"), 8, "t.data_offsets[0] = -1"},
    {TENSOR("F32", "[2]", "[0,8,8]"), 8, "has 3 elements, must have 2"},
    {TENSOR("F32", "[2]", "[0]"), 8, "has 1 elements, must have 2"},
    {TENSOR("F32", "[2]", "\"0\""), 8, "must be an array"},
    {TENSOR("F32", "[-1]", "[0,8]"), 8, "t.shape[0] = -1"},
    {TENSOR("F32", "[2.5]", "[0,8]"), 8, "integer"},
    {TENSOR("F32", "2", "[0,8]"), 8, "must be an array"},
    {TENSOR("F32", "[4294967296,4294967296]", "[0,8]"), 8, "too many elements"},
    {TENSOR("F32", "[4611686018427387906]", "[0,8]"), 8, "t.data_offsets hold 8 bytes"},
    {TENSOR("F32", "[9223372036854775807,9223372036854775807,0]", "[0,8]"), 8, "too many elements"},
    {TENSOR("F4", "[3]", "[0,1]"), 1, "3 elements of 4 bits"},
    {TENSOR("F31", "[2]", "[0,8]"), 8, "\"F31\" is no dtype"},
    {TENSOR("F32", "[1]", "[0,4]"), 8, "8 bytes of data, but the tensors in the header hold 4"},
    {TENSOR("F32", "[1]", "[4,8]"), 8, "t: bytes 4 to 8 leave a gap"},
    {TWO("[0,4]", "[2,6]"), 8, "u: bytes 2 to 6 overlap another tensor"},
    {TWO("[0,4]", "[0,4]"), 4, "overlap another tensor"},
    {"{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "t.dtype is missing"},
    {"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "t.shape is missing"},
    {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "t.data_offsets is missing"},
    {"{\"t\":7}", 0, "t must be an object"},
    {"{\"t\":null}", 0, "t is missing, must be an object"},
    {"{\"t\":{},\"t\":{}}", 0, "t"},
    {"[]", 0, "must be an object"},
    {"{\"t\":", 0, "not JSON"},
    {"", 0, "not JSON"},
};

static void wrong_headers_are_refused_by_tensor_and_reason(void **state)
{
    for (size_t i = 0; i < sizeof(wrong_headers) / sizeof(wrong_headers[0]); i++) {
        safetensors_write(*state, single, wrong_headers[i].header, wrong_headers[i].data_bytes);
        assert_open_fails(*state, TCA_ERR_INVALID, wrong_headers[i].reason);
        assert_open_fails(*state, TCA_ERR_INVALID, single);
    }
}

static void header_length_is_checked_before_it_is_used(void **state)
{
    static const uint64_t lengths[] = {3, 100000001, UINT64_MAX, UINT64_MAX - 7, 1ULL << 63};
    struct folder *folder = *state;
    char path[128];

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        safetensors_write_length(folder, single, "{}", lengths[i], 0);
        assert_open_fails(folder, TCA_ERR_INVALID, "a header of");
    }
    /* In a file that could hold it, the format's own limit counts. */
    safetensors_write_length(folder, single, "{}", 100000001, 0);
    snprintf(path, sizeof(path), "%s/%s", folder->path, single);
    assert_int_equal(truncate(path, 200000000), 0);
    assert_open_fails(folder, TCA_ERR_INVALID, "at most 100000000");
    folder_write_text(folder, single, "1234567");
    assert_open_fails(folder, TCA_ERR_INVALID, "7 bytes are too few");
    folder_write_text(folder, single, "");
    assert_open_fails(folder, TCA_ERR_INVALID, "empty");
}

static void every_truncation_is_refused(void **state)
{
    const size_t bytes = 8 + strlen(right_header) + 36;
    struct folder *folder = *state;
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder->path, single);
    for (size_t left = 0; left < bytes; left++) {
        safetensors_write(folder, single, right_header, 36);
        assert_int_equal(truncate(path, (off_t)left), 0);
        assert_open_fails(folder, TCA_ERR_INVALID, single);
    }
}

static void only_regular_files_are_mapped(void **state)
{
    struct folder *folder = *state;
    struct folder missing = {"/nonexistent/model"};
    char path[128];

    assert_open_fails(folder, TCA_ERR_NOT_FOUND, "no model.safetensors and no");
    assert_open_fails(&missing, TCA_ERR_NOT_FOUND, "no model.safetensors and no");
    snprintf(path, sizeof(path), "%s/%s", folder->path, single);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_open_fails(folder, TCA_ERR_INVALID, "not a regular file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_open_fails(folder, TCA_ERR_INVALID, "not a regular file");
    assert_int_equal(rmdir(path), 0);
}

#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void shards_are_read_by_their_index(void **state)
{
    struct weight_tensor tensor;
    struct weight_files *files;
    struct tca_error error;

    safetensors_write(*state, "one.safetensors",
                      "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    safetensors_write(*state, "two.safetensors",
                      "{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                      "\"extra\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[4,5]}}",
                      5);
    folder_write_text(*state, index_file,
                      "{\"metadata\":{\"total_size\":1},\"weight_map\":"
                      "{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    files = open_right(*state);
    assert_int_equal(weight_files_find(files, "a", 0, 1, &tensor, &error), TCA_OK);
    assert_string_equal(tensor.file, "one.safetensors");
    assert_int_equal(weight_files_find(files, "b", 0, 2, &tensor, &error), TCA_OK);
    assert_int_equal(tensor.dtype, WEIGHT_F16);
    assert_int_equal(weight_files_find(files, "c", 0, 2, &tensor, &error), TCA_ERR_NOT_FOUND);
    assert_contains(error.text, index_file);
    weight_files_close(files);
}

static const struct {
    const char *index, *reason;
    enum tca_status status;
} wrong_indexes[] = {
    {"{\"weight_map\":{\"a\":\"one.st\",\"b\":\"one.st\"}}", "weight_map.b = \"one.st\", but that",
     TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"two.st\",\"b\":\"two.st\"}}", "weight_map.a = \"two.st\", but that",
     TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"two.st\",\"b\":\"one.st\"}}", "weight_map.a = \"two.st\", but that",
     TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"three.st\"}}", "three.st", TCA_ERR_NOT_FOUND},
    {"{\"weight_map\":{\"a\":\"../one.st\"}}", "must be the name of a file", TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "must be the name of a file", TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"..\"}}", "must be the name of a file", TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"\"}}", "must be the name of a file", TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"one.st\\u0000x\"}}", "must be the name of a file", TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":1}}", "must be a string", TCA_ERR_INVALID},
    {"{\"weight_map\":[]}", "must be an object", TCA_ERR_INVALID},
    {"{}", "weight_map is missing", TCA_ERR_INVALID},
    {"[]", "must be an object", TCA_ERR_INVALID},
    {"{", "not JSON", TCA_ERR_INVALID},
    {"{\"weight_map\":{\"a\":\"one.st\",\"b\":\"two.st\",\"c\":\"again.st\"}}",
     "the same tensor is in", TCA_ERR_INVALID},
};

static void wrong_indexes_are_refused(void **state)
{
    safetensors_write(*state, "one.st", ONE("a"), 4);
    safetensors_write(*state, "two.st", ONE("b"), 4);
    safetensors_write(*state, "again.st", ONE("a"), 4);
    for (size_t i = 0; i < sizeof(wrong_indexes) / sizeof(wrong_indexes[0]); i++) {
        folder_write_text(*state, index_file, wrong_indexes[i].index);
        assert_open_fails(*state, wrong_indexes[i].status, wrong_indexes[i].reason);
    }
}

static void fingerprint_depends_on_names_shapes_and_bytes(void **state)
{
    static const char *const headers[] = {
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}",
        "{\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"BF16\",\"shape\":[4,1],\"data_offsets\":[0,8]}}",
        /* The same file again, but for spaces in the header. */
        "{ \"a\": {\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}",
    };
    char fingerprints[5][WEIGHT_FINGERPRINT_BYTES];

    for (int i = 0; i < 5; i++) {
        struct weight_files *files;

        safetensors_write(*state, single, headers[i], 8);
        files = open_right(*state);
        assert_int_equal(weight_files_fingerprint(files, fingerprints[i]), TCA_OK);
        assert_int_equal(strlen(fingerprints[i]), 64);
        weight_files_close(files);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(fingerprints[i], fingerprints[j]);
    assert_string_equal(fingerprints[0], fingerprints[4]);
}

static void fingerprint_sees_both_ends_of_a_tensor(void **state)
{
    static const char header[] =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[20000],\"data_offsets\":[0,20000]}}";
    static const long changed_bytes[] = {-1, 0, 19999};
    char fingerprints[3][WEIGHT_FINGERPRINT_BYTES];
    struct folder *folder = *state;
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder->path, single);
    for (int i = 0; i < 3; i++) {
        struct weight_files *files;

        safetensors_write(folder, single, header, 20000);
        if (changed_bytes[i] >= 0) {
            FILE *file = fopen(path, "r+e");

            assert_non_null(file);
            assert_int_equal(fseek(file, 8 + (long)strlen(header) + changed_bytes[i], SEEK_SET), 0);
            fputc(0xee, file);
            fclose(file);
        }
        files = open_right(folder);
        assert_int_equal(weight_files_fingerprint(files, fingerprints[i]), TCA_OK);
        weight_files_close(files);
    }
    assert_string_not_equal(fingerprints[0], fingerprints[1]);
    assert_string_not_equal(fingerprints[0], fingerprints[2]);
}

#define FILES_TEST(function)                                                                       \
    cmocka_unit_test_setup_teardown(function, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILES_TEST(tensors_are_found_by_name_and_shape),
        FILES_TEST(wrong_expectations_are_named),
        FILES_TEST(wrong_headers_are_refused_by_tensor_and_reason),
        FILES_TEST(header_length_is_checked_before_it_is_used),
        FILES_TEST(every_truncation_is_refused),
        FILES_TEST(only_regular_files_are_mapped),
        FILES_TEST(shards_are_read_by_their_index),
        FILES_TEST(wrong_indexes_are_refused),
        FILES_TEST(fingerprint_depends_on_names_shapes_and_bytes),
        FILES_TEST(fingerprint_sees_both_ends_of_a_tensor),
    };
    return cmocka_run_group_tests_name("weight_files", tests, NULL, NULL);
}
