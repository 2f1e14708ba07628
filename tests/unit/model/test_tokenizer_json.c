/* Which tokenizer.json is taken, and that no damaged one does more than to be refused. */
#include "tests/support/check.h"

#include "model/tokenizer.h"
#include "tests/unit/model/small_tokenizer.h"

static enum tca_status open_parts(const struct folder *folder, const struct small_tokenizer *parts,
                                  struct tca_error *error)
{
    struct tokenizer *tokenizer = NULL;
    enum tca_status status;

    small_tokenizer_write(folder, parts);
    status = tokenizer_open(folder->path, &tokenizer, error);
    assert_int_equal(tokenizer != NULL, status == TCA_OK);
    tokenizer_close(tokenizer);
    return status;
}

/* One part of the small tokenizer written otherwise, and what is said about it. */
struct change {
    size_t part; /* offset of the part in struct small_tokenizer */
    const char *text;
    enum tca_status status;
    const char *finding;
};

#define PART(name) offsetof(struct small_tokenizer, name)

static const struct change refused[] = {
    {PART(vocab), ", \"he\": 256, \"ll\": 256", TCA_ERR_INVALID,
     "model.vocab.ll = 256 is the id of another token"},
    {PART(vocab), ", \"he\": -1", TCA_ERR_INVALID, "model.vocab.he = -1 must be from 0 to"},
    {PART(vocab), ", \"he\": 99999999", TCA_ERR_INVALID, "model.vocab.he = 99999999 must be from"},
    {PART(vocab), ", \"he\": \"256\"", TCA_ERR_INVALID,
     "model.vocab.he must be a number, not a string"},
    {PART(vocab), ", \"he\": 256.5", TCA_ERR_INVALID, "model.vocab.he = 256.5 must be an integer"},
    {PART(vocab), ", \"ll\": 257, \"hell\": 258", TCA_ERR_INVALID,
     "model.merges[0] needs the token \"he\", which model.vocab does not have"},
    {PART(merges), "\"h e l\"", TCA_ERR_INVALID, "model.merges[0] = \"h e l\" must be two tokens"},
    {PART(merges), "\"he\"", TCA_ERR_INVALID, "model.merges[0] = \"he\" must be two tokens"},
    {PART(merges), "[\"h\"]", TCA_ERR_INVALID, "model.merges[0] has 1 elements, must have 2"},
    {PART(merges), "[\"h\", 5]", TCA_ERR_INVALID, "model.merges[0][1] must be a string"},
    {PART(merges), "7", TCA_ERR_INVALID, "model.merges[0] must be a string, not a number"},
    {PART(merges), "\"l h\"", TCA_ERR_INVALID, "model.merges[0] needs the token \"lh\""},
    {PART(model), ", \"dropout\": 0.1", TCA_ERR_UNSUPPORTED,
     "model.dropout = 0.1 is not supported"},
    {PART(model), ", \"continuing_subword_prefix\": \"##\"", TCA_ERR_UNSUPPORTED,
     "model.continuing_subword_prefix = \"##\" is not supported"},
    {PART(model), ", \"end_of_word_suffix\": \"</w>\"", TCA_ERR_UNSUPPORTED,
     "model.end_of_word_suffix = \"</w>\" is not supported"},
    {PART(model), ", \"unk_token\": \"<unk>\"", TCA_ERR_INVALID,
     "model.unk_token = \"<unk>\" is no token of model.vocab"},
    {PART(model), ", \"ignore_merges\": 1", TCA_ERR_INVALID,
     "model.ignore_merges must be true or false, not a number"},
    {PART(normalizer), "{\"type\": \"NFKC\"}", TCA_ERR_UNSUPPORTED,
     "normalizer.type = \"NFKC\" is not supported"},
    {PART(normalizer), "{}", TCA_ERR_INVALID, "normalizer.type is missing, must be a string"},
    {PART(normalizer), "[]", TCA_ERR_INVALID, "normalizer must be an object, not an array"},
    {PART(pre_tokenizer), "null", TCA_ERR_INVALID, "pre_tokenizer is missing"},
    {PART(pre_tokenizer), "{\"type\": \"Metaspace\"}", TCA_ERR_UNSUPPORTED,
     "pre_tokenizer.type = \"Metaspace\" is not supported"},
    {PART(pre_tokenizer), "{\"type\": \"Digits\"}", TCA_ERR_UNSUPPORTED,
     "pre_tokenizer without ByteLevel is not supported"},
    {PART(pre_tokenizer), "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}",
     TCA_ERR_UNSUPPORTED, "pre_tokenizer.add_prefix_space = true is not supported"},
    {PART(pre_tokenizer),
     "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": "
     "\"Digits\"}]}",
     TCA_ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[1] after ByteLevel is not supported"},
    {PART(pre_tokenizer), "{\"type\": \"Sequence\", \"pretokenizers\": 5}", TCA_ERR_INVALID,
     "pre_tokenizer.pretokenizers must be an array"},
    {PART(pre_tokenizer),
     "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"Removed\"}",
     TCA_ERR_UNSUPPORTED, "pre_tokenizer.behavior = \"Removed\" is not supported"},
    {PART(pre_tokenizer),
     "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Isolated\"}",
     TCA_ERR_UNSUPPORTED, "pre_tokenizer.pattern is not supported without \"Regex\""},
    {PART(pre_tokenizer),
     "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}, \"behavior\": \"Isolated\"}",
     TCA_ERR_INVALID, "pre_tokenizer.pattern.Regex = \"(a\": missing closing parenthesis"},
    {PART(pre_tokenizer),
     "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\\\\w\"}, \"behavior\": \"Isolated\"}",
     TCA_ERR_UNSUPPORTED, "= \"a\\w\": what stands at byte 1 is not supported"},
    {PART(decoder), "null", TCA_ERR_INVALID, "decoder is missing"},
    {PART(decoder), "{\"type\": \"WordPiece\"}", TCA_ERR_UNSUPPORTED,
     "decoder.type = \"WordPiece\" is not supported"},
    {PART(added), "{\"content\": \"<s>\"}", TCA_ERR_INVALID, "added_tokens[0].id is missing"},
    {PART(added), "{\"id\": 1}", TCA_ERR_INVALID, "added_tokens[0].content is missing"},
    {PART(added), "{\"id\": 256, \"content\": \"<s>\"}", TCA_ERR_INVALID,
     "added_tokens[0].id = 256 is the id of another token"},
    {PART(added), "{\"id\": 300, \"content\": \"hell\"}", TCA_ERR_INVALID,
     "added_tokens[0].id = 300, but the same text has id 258 elsewhere"},
    {PART(added), "{\"id\": 300, \"content\": \"<s>\", \"special\": \"yes\"}", TCA_ERR_INVALID,
     "added_tokens[0].special must be true or false"},
    {PART(added), "5", TCA_ERR_INVALID, "added_tokens[0] must be an object, not a number"},
};

static void what_is_wrong_is_named_with_file_key_and_value(void **state)
{
    struct folder folder;

    (void)state;
    folder_create(&folder);
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        struct small_tokenizer parts = small_tokenizer();
        struct tca_error error = {""};
        enum tca_status status;

        memcpy((char *)&parts + refused[i].part, &refused[i].text, sizeof(refused[i].text));
        status = open_parts(&folder, &parts, &error);
        if (strstr(error.text, refused[i].finding) == NULL)
            fail_msg("\"%s\" says nothing of \"%s\"", error.text, refused[i].finding);
        assert_int_equal(status, refused[i].status);
        assert_non_null(strstr(error.text, "/tokenizer.json: "));
    }
    folder_destroy(&folder);
}

static void another_model_type_is_refused(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct tca_error error = {""};
    struct folder folder;

    (void)state;
    folder_create(&folder);
    assert_int_equal(tokenizer_open(folder.path, &tokenizer, &error), TCA_ERR_NOT_FOUND);
    folder_write_text(&folder, "tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}");
    assert_int_equal(tokenizer_open(folder.path, &tokenizer, &error), TCA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "model.type = \"Unigram\" is not supported, only \"BPE\""));
    folder_write_text(&folder, "tokenizer.json", "[]");
    assert_int_equal(tokenizer_open(folder.path, &tokenizer, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "the top level must be an object, not an array"));
    folder_write_text(&folder, "tokenizer.json", "{\"model\": {\"vocab\": {}, \"merges\": []}}");
    assert_int_equal(tokenizer_open(folder.path, &tokenizer, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "model.vocab is empty"));
    assert_null(tokenizer);
    folder_destroy(&folder);
}

static void both_forms_of_merges_and_gaps_in_the_ids_are_taken(void **state)
{
    struct small_tokenizer parts = small_tokenizer();
    struct tokenizer *tokenizer = NULL;
    static const int32_t hello[] = {258, 'o'};
    struct token_ids ids = {0};
    struct bytes text = {0};
    struct folder folder;

    (void)state;
    folder_create(&folder);
    small_tokenizer_write(&folder, &parts);
    assert_int_equal(tokenizer_open(folder.path, &tokenizer, NULL), TCA_OK);
    assert_int_equal(tokenizer_encode(tokenizer, "hello", 5, false, &ids), TCA_OK);
    assert_int_equal(ids.count, 2);
    assert_memory_equal(ids.ids, hello, sizeof(hello));
    assert_int_equal(tokenizer_vocab(tokenizer), 301);
    assert_int_equal(tokenizer_decode(tokenizer, 280, true, &text), TCA_OK); /* in the gap */
    assert_int_equal(text.size, 0);
    assert_int_equal(tokenizer_decode(tokenizer, 300, true, &text), TCA_OK);
    assert_int_equal(text.size, 3);
    token_ids_free(&ids);
    bytes_free(&text);
    tokenizer_close(tokenizer);
    folder_destroy(&folder);
}

static char *read_needle(size_t *bytes_out)
{
    char path[512];
    FILE *file;
    char *data = malloc(1 << 20);

    snprintf(path, sizeof(path), "%s/models/needle-9m/tokenizer.json", getenv("TCA_SOURCE"));
    file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(data);
    *bytes_out = fread(data, 1, 1 << 20, file);
    fclose(file);
    return data;
}

/* Whatever a damaged file still is, opening and using it goes well or is refused. */
static void use_damaged(const struct folder *folder, const char *data, size_t bytes)
{
    static const char text[] = "Some text: 42 <|im_end|> \xc3\xa9\xe4\xb8\xad\n\n  x";
    struct tokenizer *tokenizer = NULL;
    struct tca_error error = {""};
    struct token_ids ids = {0};
    struct bytes out = {0};
    enum tca_status status;

    folder_write(folder, "tokenizer.json", data, bytes);
    status = tokenizer_open(folder->path, &tokenizer, &error);
    if (status != TCA_OK) {
        assert_true(status == TCA_ERR_INVALID || status == TCA_ERR_UNSUPPORTED);
        assert_true(strlen(error.text) > 0);
        return;
    }
    assert_int_equal(tokenizer_encode(tokenizer, text, sizeof(text) - 1, true, &ids), TCA_OK);
    for (size_t i = 0; i < ids.count; i++)
        assert_int_equal(tokenizer_decode(tokenizer, ids.ids[i], true, &out), TCA_OK);
    token_ids_free(&ids);
    bytes_free(&out);
    tokenizer_close(tokenizer);
}

static void damaged_files_are_refused_or_used_but_never_crash(void **state)
{
    struct folder folder;
    size_t bytes;
    char *whole = read_needle(&bytes), *damaged = malloc(bytes);
    uint32_t seed = 9;

    (void)state;
    assert_non_null(damaged);
    folder_create(&folder);
    for (int round = 0; round < 300; round++) {
        size_t left = bytes;

        memcpy(damaged, whole, bytes);
        seed = seed * 1664525u + 1013904223u;
        /* Half of the damage goes where the structure is, not the vocabulary. */
        const size_t at = round % 2 == 0 ? (seed >> 8) % bytes : (seed >> 8) % 2000;
        if (round % 5 == 0)
            left = at;
        else if (round % 5 == 1)
            damaged[at] = "{}[]\",:0-\\"[(seed >> 4) % 10];
        else
            damaged[at] = (char)(damaged[at] ^ (1 << (seed >> 5) % 8));
        use_damaged(&folder, damaged, left);
    }
    folder_destroy(&folder);
    free(whole);
    free(damaged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_named_with_file_key_and_value),
        cmocka_unit_test(another_model_type_is_refused),
        cmocka_unit_test(both_forms_of_merges_and_gaps_in_the_ids_are_taken),
        cmocka_unit_test(damaged_files_are_refused_or_used_but_never_crash),
    };
    return cmocka_run_group_tests_name("tokenizer_json", tests, NULL, NULL);
}
