/* Documents of exactly the asked length, made of the user's texts with facts that can be found. */
#include "tests/support/check.h"
#include "tests/support/folder.h"

#include "calibrate/documents.h"
#include "calibrate/sample.h"
#include "model/tokenizer.h"

enum { LENGTHS = 2, QUESTIONS = 5, LINES = 900 };

static const int64_t lengths[LENGTHS] = {2304, 4000};

struct fixture {
    struct folder folder;
    char model[256];
    char first[128], second[128];
    char *files[2];
    struct documents_options options;
};

static int setup(void **state)
{
    static struct fixture fixture;
    static char text[LINES * 40];
    size_t used = 0;

    fixture = (struct fixture){.files = {fixture.first, fixture.second}};
    folder_create(&fixture.folder);
    for (int i = 0; i < LINES; i++)
        used += (size_t)sprintf(text + used, "Line %d of a text that goes on.\n", i);
    folder_write_text(&fixture.folder, "first.txt", text);
    folder_write_text(&fixture.folder, "second.txt", "The end of all text, <|im_end|> included.");
    snprintf(fixture.model, sizeof(fixture.model), "%s/models/needle-9m", getenv("TCA_SOURCE"));
    snprintf(fixture.first, sizeof(fixture.first), "%s/first.txt", fixture.folder.path);
    snprintf(fixture.second, sizeof(fixture.second), "%s/second.txt", fixture.folder.path);
    fixture.options = (struct documents_options){.model_folder = fixture.model,
                                                 .files = fixture.files,
                                                 .file_count = 2,
                                                 .lengths = lengths,
                                                 .length_count = LENGTHS,
                                                 .questions = QUESTIONS,
                                                 .seed = 3};
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    folder_destroy(&fixture->folder);
    return 0;
}

/* Owned; ends with a NUL. */
static char *decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count)
{
    struct bytes text = {0};

    for (size_t i = 0; i < count; i++)
        assert_int_equal(tokenizer_decode(tokenizer, ids[i], true, &text), TCA_OK);
    assert_int_equal(bytes_append(&text, "", 1), TCA_OK);
    return (char *)text.data;
}

static void documents_have_their_lengths_and_the_prefix(void **state)
{
    struct fixture *fixture = *state;
    struct documents documents;
    struct tca_error error;

    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_OK);
    assert_int_equal(documents.count, LENGTHS);
    for (int i = 0; i < LENGTHS; i++) {
        assert_int_equal(documents.list[i].ids.count, lengths[i]);
        assert_int_equal(documents.list[i].ids.ids[0], 1); /* <|im_start|> */
        for (size_t at = 1; at < documents.list[i].ids.count; at++)
            assert_in_range(documents.list[i].ids.ids[at], 4, 4095); /* none in the text */
    }
    documents_free(&documents);
}

/* Every question's fact stands in the document on a line of its own, in its part of it. */
static void facts_are_planted_on_lines_of_their_own(void **state)
{
    struct fixture *fixture = *state;
    struct tokenizer *tokenizer;
    struct documents documents;
    struct tca_error error;

    assert_int_equal(tokenizer_open(fixture->model, &tokenizer, &error), TCA_OK);
    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_OK);
    for (int i = 0; i < LENGTHS; i++) {
        const struct calibration_document *document = &documents.list[i];
        char *text = decode(tokenizer, document->ids.ids, document->ids.count);
        const char *before = text;

        assert_int_equal(document->questions, QUESTIONS);
        for (int q = 0; q < QUESTIONS; q++) {
            const struct calibration_question *question = &document->question[q];
            const size_t answer_tokens = question->ids.count - (size_t)question->question_tokens;
            char *asked = decode(tokenizer, question->ids.ids, (size_t)question->question_tokens);
            char *answer =
                decode(tokenizer, question->ids.ids + question->question_tokens, answer_tokens);
            const char *fact = strstr(text, answer);

            assert_in_range(answer_tokens, 1, SAMPLE_JUDGED);
            assert_non_null(strstr(asked, "\n\nQuestion: What is the "));
            assert_non_null(strstr(asked, "?<|im_end|>\n<|im_start|>assistant\n"));
            assert_int_equal(strlen(answer), 7);
            assert_true(fact != NULL && fact > before); /* in order */
            assert_memory_equal(fact + 7, ".\n", 2);
            while (fact[-1] != '\n')
                fact--;
            assert_true(strncmp(fact, "The ", 4) == 0 || strncmp(fact, "One of the ", 11) == 0 ||
                        strncmp(fact, "Note that ", 10) == 0);
            before = fact;
            free(answer);
            free(asked);
        }
        free(text);
    }
    documents_free(&documents);
    tokenizer_close(tokenizer);
}

static void each_length_takes_other_text(void **state)
{
    struct fixture *fixture = *state;
    struct tokenizer *tokenizer;
    struct documents documents;
    struct tca_error error;
    char *texts[LENGTHS];

    fixture->options.questions = 0;
    assert_int_equal(tokenizer_open(fixture->model, &tokenizer, &error), TCA_OK);
    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_OK);
    for (int i = 0; i < LENGTHS; i++)
        texts[i] = decode(tokenizer, documents.list[i].ids.ids, documents.list[i].ids.count);
    assert_non_null(strstr(texts[0], "Line 3 of"));
    assert_null(strstr(texts[1], "Line 3 of"));
    for (int i = 0; i < LENGTHS; i++)
        free(texts[i]);
    documents_free(&documents);
    tokenizer_close(tokenizer);
}

static void the_seed_decides(void **state)
{
    struct fixture *fixture = *state;
    struct documents documents[3];
    struct tca_error error;

    for (int i = 0; i < 3; i++) {
        fixture->options.seed = i == 2 ? 4 : 3;
        assert_int_equal(documents_make(&fixture->options, &documents[i], &error), TCA_OK);
    }
    const struct token_ids *one = &documents[0].list[0].ids, *again = &documents[1].list[0].ids;
    assert_memory_equal(one->ids, again->ids, one->count * sizeof(*one->ids));
    assert_memory_not_equal(one->ids, documents[2].list[0].ids.ids, one->count * sizeof(*one->ids));
    for (int i = 0; i < 3; i++)
        documents_free(&documents[i]);
}

static void bad_texts_are_refused_by_name(void **state)
{
    struct fixture *fixture = *state;
    struct documents documents;
    struct tca_error error;
    const int64_t long_ones[LENGTHS] = {2304, 1000000};

    fixture->options.lengths = long_ones;
    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_ERR_RANGE);
    assert_non_null(strstr(error.text, "too few for documents up to 1000000 tokens"));
    fixture->options.lengths = lengths;

    folder_write(&fixture->folder, "second.txt", "ab\xff", 3);
    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "second.txt: is not UTF-8"));

    fixture->files[0] = (char[]){"/nowhere/text"};
    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere/text: No such file"));

    fixture->files[0] = fixture->folder.path;
    assert_int_equal(documents_make(&fixture->options, &documents, &error), TCA_ERR_IO);
    assert_non_null(strstr(error.text, fixture->folder.path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(documents_have_their_lengths_and_the_prefix, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(facts_are_planted_on_lines_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(each_length_takes_other_text, setup, teardown),
        cmocka_unit_test_setup_teardown(the_seed_decides, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_texts_are_refused_by_name, setup, teardown),
    };
    return cmocka_run_group_tests_name("documents", tests, NULL, NULL);
}
