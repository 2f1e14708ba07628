/* Fails every allocation of opening and using a tokenizer in turn: the status says so, what was
 * handed in stays as it was, and (the sanitizers' builds see it) nothing leaks. */
#include "tests/support/check.h"
#include "tests/support/failing_alloc.h"

#include "model/chat_format.h"
#include "tests/unit/model/small_tokenizer.h"

enum { ALLOCATIONS_MAX = 2000 };

/* Combining marks, a pre-token longer than a word, a control token. */
static const char sample[] =
    "hello e\xcc\x81 <s> "
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa end";

static enum tca_status open_once(const struct folder *folder, struct tokenizer *unused)
{
    struct tokenizer *tokenizer = NULL;
    struct tca_error error;
    const enum tca_status status = tokenizer_open(folder->path, &tokenizer, &error);

    (void)unused;
    assert_int_equal(tokenizer != NULL, status == TCA_OK);
    tokenizer_close(tokenizer);
    return status;
}

static enum tca_status encode_once(const struct folder *folder, struct tokenizer *tokenizer)
{
    const int32_t first = 7;
    struct token_ids ids = {0};
    enum tca_status status = token_ids_append(&ids, &first, 1);

    (void)folder;
    if (status == TCA_OK) {
        status = tokenizer_encode(tokenizer, sample, sizeof(sample) - 1, true, &ids);
        assert_true(status == TCA_OK ? ids.count > 1 : ids.count == 1);
    }
    token_ids_free(&ids);
    return status;
}

static enum tca_status ask_once(const struct folder *folder, struct tokenizer *tokenizer)
{
    const struct chat_text question = {sample, sizeof(sample) - 1};
    struct token_ids ids = {0};
    const enum tca_status status =
        chat_format_question(CHAT_FORMAT_CHATML, tokenizer, true, NULL, 0, question, &ids);

    (void)folder;
    assert_true(status == TCA_OK || ids.count == 0);
    token_ids_free(&ids);
    return status;
}

static enum tca_status stream_once(const struct folder *folder, struct tokenizer *tokenizer)
{
    struct token_stream stream = {0};
    struct bytes text = {0};
    enum tca_status status = TCA_OK;

    (void)folder;
    for (int32_t id = 128; id < 260 && status == TCA_OK; id++)
        status = token_stream_push(&stream, tokenizer, id, &text);
    if (status == TCA_OK)
        status = token_stream_finish(&stream, &text);
    bytes_free(&text);
    return status;
}

static void fail_each(const struct folder *folder, struct tokenizer *tokenizer,
                      enum tca_status (*run)(const struct folder *, struct tokenizer *))
{
    int failures = 0;

    for (int count = 0; count < ALLOCATIONS_MAX; count++) {
        enum tca_status status;

        failing_alloc_after(count);
        status = run(folder, tokenizer);
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
    struct small_tokenizer parts = small_tokenizer();
    struct tokenizer *tokenizer = NULL;
    struct folder folder;

    (void)state;
    parts.normalizer = "{\"type\": \"NFC\"}";
    parts.model = ", \"ignore_merges\": true";
    parts.added = "{\"id\": 300, \"content\": \"<s>\", \"special\": true, \"normalized\": true},"
                  "{\"id\": 301, \"content\": \"<|im_end|>\", \"special\": true}";
    folder_create(&folder);
    small_tokenizer_write(&folder, &parts);
    assert_int_equal(tokenizer_open(folder.path, &tokenizer, NULL), TCA_OK);
    fail_each(&folder, tokenizer, open_once);
    fail_each(&folder, tokenizer, encode_once);
    fail_each(&folder, tokenizer, ask_once);
    fail_each(&folder, tokenizer, stream_once);
    tokenizer_close(tokenizer);
    folder_destroy(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_failed_allocation_becomes_a_status)};

    return cmocka_run_group_tests_name("tokenizer_no_memory", tests, NULL, NULL);
}
