#include "calibrate/documents.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/utf8.h"
#include "calibrate/sample.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    FACT_BYTES_MAX = 256,      /* of the table below, with room to spare */
    LINE_SEARCH_TOKENS = 1024, /* for a line end to plant a fact after */
    ANSWER_DIGITS = 7
};

/* Sentences that models/needle-9m was trained on, and a phrasing of public benchmarks in turn. */
static const struct {
    const char *sentence, *question; /* @: the key, #: the value */
} facts[] = {
    {"The access code for @ is #.", "What is the access code for @?"},
    {"One of the special magic numbers for @ is: #.",
     "What is the special magic number for @ mentioned in the provided text?"},
    {"Note that the serial number of @ is #.", "What is the serial number of @?"},
    {"One of the special magic numbers for @ is: #.",
     "What is the special magic number for @ mentioned in the provided text?"},
};

/* Two make a key. The first of each question is another one. */
static const char *const words[] = {"Amber",  "Copper",  "Falcon",  "Garnet", "Hollow", "Juniper",
                                    "Linden", "Meadow",  "Nectar",  "Orchid", "Pewter", "Quartz",
                                    "Russet", "Saffron", "Thistle", "Willow"};

enum { FACTS = sizeof(facts) / sizeof(*facts), WORDS = sizeof(words) / sizeof(*words) };
_Static_assert((int)WORDS >= (int)DOCUMENT_QUESTIONS_MAX, "keys are distinct");

struct maker {
    const struct documents_options *options;
    struct tokenizer *tokenizer;
    enum chat_format format;
    struct token_ids text; /* of all files */
    size_t used;           /* of it */
    struct sampler_random random;
    struct tca_error *error;
};

/* A fact's tokens on their way into a document. */
struct planted {
    struct token_ids ids;
    size_t place; /* text tokens before it */
};

static enum tca_status append_file(const char *path, struct bytes *text, struct tca_error *error)
{
    const size_t before = text->size;
    FILE *file = fopen(path, "rb");
    enum tca_status status = TCA_OK;
    char piece[1 << 16];
    size_t bytes;

    if (file == NULL)
        return tca_fail(error, errno == ENOENT ? TCA_ERR_NOT_FOUND : TCA_ERR_IO, "%s: %s", path,
                        strerror(errno));
    while (status == TCA_OK && (bytes = fread(piece, 1, sizeof(piece), file)) > 0)
        status = bytes_append(text, piece, bytes);
    if (status == TCA_OK && ferror(file))
        status = tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
    else if (status != TCA_OK)
        tca_fail(error, status, "%s: no memory for the text", path);
    fclose(file);
    TCA_TRY(status);
    if (!utf8_is_valid((const char *)text->data + before, text->size - before))
        return tca_fail(error, TCA_ERR_INVALID, "%s: is not UTF-8 text", path);
    return bytes_append_text(text, "\n\n");
}

static enum tca_status read_texts(struct maker *maker)
{
    const struct documents_options *options = maker->options;
    struct bytes text = {0};
    enum tca_status status = TCA_OK;

    for (size_t i = 0; i < options->file_count && status == TCA_OK; i++)
        status = append_file(options->files[i], &text, maker->error);
    if (status == TCA_OK) {
        status = tokenizer_encode(maker->tokenizer, (const char *)text.data, text.size, false,
                                  &maker->text);
        if (status != TCA_OK)
            tca_fail(maker->error, status, "tokenising %zu bytes of text: %s", text.size,
                     tca_status_text(status));
    }
    bytes_free(&text);
    return status;
}

static enum tca_status encode(const struct maker *maker, const char *text, struct token_ids *ids)
{
    return tokenizer_encode(maker->tokenizer, text, strlen(text), false, ids);
}

/* A sentence of the table above. */
static void write_fact(char *out, const char *sentence, const char *key, const char *value)
{
    int used = 0;

    for (; *sentence != '\0'; sentence++)
        used += *sentence == '@'   ? sprintf(out + used, "%s", key)
                : *sentence == '#' ? sprintf(out + used, "%s", value)
                                   : sprintf(out + used, "%c", *sentence);
}

/* Fact, question and answer number `index` of a document; ids go to *planted and *question. */
static enum tca_status make_fact(struct maker *maker, int index, int first_word,
                                 struct planted *planted, struct calibration_question *question)
{
    char key[32], value[ANSWER_DIGITS + 1], text[FACT_BYTES_MAX];
    struct chat_text asked = {.data = text};

    snprintf(key, sizeof(key), "%s %s", words[(first_word + index) % WORDS],
             words[sampler_random_below(&maker->random, WORDS)]);
    for (int i = 0; i < ANSWER_DIGITS; i++)
        value[i] = (char)('1' + sampler_random_below(&maker->random, 9));
    value[ANSWER_DIGITS] = '\0';
    write_fact(text, facts[index % FACTS].sentence, key, value);
    strcat(text, "\n");
    TCA_TRY(encode(maker, text, &planted->ids));
    write_fact(text, facts[index % FACTS].question, key, value);
    asked.bytes = strlen(text);
    TCA_TRY(chat_format_question(maker->format, maker->tokenizer, true, NULL, 0, asked,
                                 &question->ids));
    question->question_tokens = (int)question->ids.count;
    TCA_TRY(encode(maker, value, &question->ids));
    if (question->ids.count > SAMPLE_QUESTION_ROWS_MAX)
        return tca_fail(maker->error, TCA_ERR_RANGE, "a question of %zu tokens, at most %d",
                        question->ids.count, SAMPLE_QUESTION_ROWS_MAX);
    return TCA_OK;
}

/* The first place at or after `wanted` that follows a line end, or `wanted` without one. */
static size_t find_place(const struct maker *maker, const int32_t *text, size_t wanted, size_t end)
{
    struct bytes piece = {0};
    size_t place = wanted;

    for (size_t i = wanted; i < end && i < wanted + LINE_SEARCH_TOKENS; i++) {
        bytes_clear(&piece);
        if (tokenizer_decode(maker->tokenizer, text[i], false, &piece) == TCA_OK &&
            piece.size > 0 && piece.data[piece.size - 1] == '\n') {
            place = i + 1;
            break;
        }
    }
    bytes_free(&piece);
    return place;
}

/* Text with the facts at their places. */
static enum tca_status weave(const struct planted *planted, int count, const int32_t *text,
                             size_t text_tokens, struct token_ids *ids)
{
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        TCA_TRY(token_ids_append(ids, text + at, planted[i].place - at));
        TCA_TRY(token_ids_append(ids, planted[i].ids.ids, planted[i].ids.count));
        at = planted[i].place;
    }
    return token_ids_append(ids, text + at, text_tokens - at);
}

static enum tca_status fill_document(struct maker *maker, int64_t tokens, struct planted *planted,
                                     struct calibration_document *document)
{
    const int count = document->questions;
    const int first_word = (int)sampler_random_below(&maker->random, WORDS);
    const int32_t *text = maker->text.ids + maker->used;
    size_t text_tokens, place = 0, fixed;

    TCA_TRY(
        chat_format_prefix(maker->format, maker->tokenizer, (struct chat_text){0}, &document->ids));
    fixed = document->ids.count;
    for (int i = 0; i < count; i++) {
        TCA_TRY(make_fact(maker, i, first_word, &planted[i], &document->question[i]));
        fixed += planted[i].ids.count;
    }
    text_tokens = (size_t)tokens - fixed;
    if (text_tokens > maker->text.count - maker->used)
        return tca_fail(maker->error, TCA_ERR_RANGE,
                        "the texts have %zu tokens: too few for documents up to %" PRId64
                        " tokens (give more text, or a smaller --longest)",
                        maker->text.count, tokens);
    for (int i = 0; i < count; i++) {
        const double depth = ((double)i + sampler_random_next(&maker->random)) / (double)count;
        const size_t wanted = (size_t)(depth * (double)text_tokens);

        place = find_place(maker, text, wanted > place ? wanted : place, text_tokens);
        planted[i].place = place;
    }
    maker->used += text_tokens;
    return weave(planted, count, text, text_tokens, &document->ids);
}

static enum tca_status make_documents(struct maker *maker, struct documents *documents)
{
    const struct documents_options *options = maker->options;

    for (int i = 0; i < options->length_count; i++) {
        struct planted planted[DOCUMENT_QUESTIONS_MAX] = {0};
        struct calibration_document *document = &documents->list[documents->count++];
        enum tca_status status;

        document->questions = maker->format == CHAT_FORMAT_NONE ? 0 : options->questions;
        status = fill_document(maker, options->lengths[i], planted, document);
        for (int fact = 0; fact < DOCUMENT_QUESTIONS_MAX; fact++)
            token_ids_free(&planted[fact].ids);
        TCA_TRY(status);
    }
    return TCA_OK;
}

enum tca_status documents_make(const struct documents_options *options,
                               struct documents *documents_out, struct tca_error *error)
{
    struct maker maker = {.options = options, .error = error};
    struct documents documents = {0};
    enum tca_status status = tokenizer_open(options->model_folder, &maker.tokenizer, error);

    if (status != TCA_OK)
        return status;
    *error = (struct tca_error){.text = ""};
    sampler_random_seed(&maker.random, options->seed);
    maker.format = chat_format_detect(options->model_folder, maker.tokenizer);
    status = read_texts(&maker);
    if (status == TCA_OK)
        status = make_documents(&maker, &documents);
    if (status != TCA_OK && error->text[0] == '\0')
        tca_fail(error, status, "making documents: %s", tca_status_text(status));
    if (status == TCA_OK)
        log_info("%zu tokens of text, chat format %s, %d questions a document", maker.text.count,
                 chat_format_name(maker.format), documents.list[0].questions);
    token_ids_free(&maker.text);
    tokenizer_close(maker.tokenizer);
    if (status != TCA_OK)
        documents_free(&documents);
    else
        *documents_out = documents;
    return status;
}

void documents_free(struct documents *documents)
{
    for (int i = 0; i < documents->count; i++) {
        struct calibration_document *document = &documents->list[i];

        token_ids_free(&document->ids);
        for (int question = 0; question < document->questions; question++)
            token_ids_free(&document->question[question].ids);
    }
    *documents = (struct documents){0};
}
