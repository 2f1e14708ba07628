/* A tokenizer.json written by a test: 256 bytes as ids 0 to 255, a few merges, control tokens. */
#ifndef TESTS_UNIT_MODEL_SMALL_TOKENIZER_H
#define TESTS_UNIT_MODEL_SMALL_TOKENIZER_H

#include "tests/support/folder.h"

#include "model/byte_alphabet.h"

/* The parts that a test may want otherwise, each the JSON text behind its key. */
struct small_tokenizer {
    const char *vocab;  /* more members of model.vocab: ", \"he\": 256" */
    const char *merges; /* elements of model.merges */
    const char *model;  /* more members of model */
    const char *normalizer;
    const char *pre_tokenizer;
    const char *decoder;
    const char *added; /* elements of added_tokens */
};

static const char small_byte_level[] =
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}";

static inline struct small_tokenizer small_tokenizer(void)
{
    return (struct small_tokenizer){
        .vocab = ", \"he\": 256, \"ll\": 257, \"hell\": 258",
        .merges = "\"h e\", [\"l\", \"l\"], \"he ll\"",
        .model = "",
        .normalizer = "null",
        .pre_tokenizer = small_byte_level,
        .decoder = "{\"type\": \"ByteLevel\"}",
        .added = "{\"id\": 300, \"content\": \"<s>\", \"special\": true}",
    };
}

static inline void small_tokenizer_write(const struct folder *folder,
                                         const struct small_tokenizer *parts)
{
    char bytes[8192], text[16384];
    size_t used = 0;

    for (int byte = 0; byte < 256; byte++) {
        char character[3] = "";

        byte_alphabet_encode((uint8_t)byte, character);
        used += (size_t)snprintf(
            bytes + used, sizeof(bytes) - used, "%s\"%s%s\": %d", byte == 0 ? "" : ", ",
            character[0] == '"' || character[0] == '\\' ? "\\" : "", character, byte);
    }
    used = (size_t)snprintf(
        text, sizeof(text),
        "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, \"decoder\": %s,"
        " \"model\": {\"type\": \"BPE\"%s, \"vocab\": {%s%s}, \"merges\": [%s]}}",
        parts->added, parts->normalizer, parts->pre_tokenizer, parts->decoder, parts->model, bytes,
        parts->vocab, parts->merges);
    assert_true(used < sizeof(text));
    folder_write(folder, "tokenizer.json", text, used);
}

#endif
