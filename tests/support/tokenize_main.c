/* The tokenizer for a test in another language: answers requests on stdin until it ends.
 *
 *   tokenize FOLDER            exit code 1 and a line on stderr when it cannot be opened
 *
 * Request: a command byte, a little-endian u32 length, that many bytes. Answer: a signed status
 * byte, a u32 length, that many bytes. Commands: e (encode), p (encode, special tokens parsed),
 * l (encode in pieces), d (decode ids, special tokens kept), s (streaming decode). Ids are i32. */
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool count_pieces(void *context, size_t bytes_done)
{
    size_t *last = context;

    if (bytes_done < *last)
        return false; /* progress never goes back */
    *last = bytes_done;
    return true;
}

static enum tca_status decode(const struct tokenizer *tokenizer, const struct bytes *in,
                              struct bytes *out)
{
    for (size_t at = 0; at + sizeof(int32_t) <= in->size; at += sizeof(int32_t)) {
        int32_t id;

        memcpy(&id, in->data + at, sizeof(id));
        TCA_TRY(tokenizer_decode(tokenizer, id, true, out));
    }
    return TCA_OK;
}

static enum tca_status decode_stream(const struct tokenizer *tokenizer, const struct bytes *in,
                                     struct bytes *out)
{
    struct token_stream stream = {0};

    for (size_t at = 0; at + sizeof(int32_t) <= in->size; at += sizeof(int32_t)) {
        int32_t id;

        memcpy(&id, in->data + at, sizeof(id));
        TCA_TRY(token_stream_push(&stream, tokenizer, id, out));
    }
    return token_stream_finish(&stream, out);
}

static enum tca_status answer(const struct tokenizer *tokenizer, char command,
                              const struct bytes *in, struct bytes *out)
{
    const char *text = (const char *)in->data;
    struct token_ids ids = {0};
    size_t last = 0;
    enum tca_status status = TCA_ERR_INVALID;

    switch (command) {
    case 'd':
        return decode(tokenizer, in, out);
    case 's':
        return decode_stream(tokenizer, in, out);
    case 'l':
        status = tokenizer_encode_long(tokenizer, text, in->size, 1000, count_pieces, &last, &ids);
        break;
    case 'e':
    case 'p':
        status = tokenizer_encode(tokenizer, text, in->size, command == 'p', &ids);
        break;
    }
    if (status == TCA_OK)
        status = bytes_append(out, ids.ids, ids.count * sizeof(*ids.ids));
    token_ids_free(&ids);
    return status;
}

static bool serve_one(const struct tokenizer *tokenizer, struct bytes *in, struct bytes *out)
{
    char command;
    uint32_t length;
    signed char status;

    bytes_clear(in);
    bytes_clear(out);
    if (fread(&command, 1, 1, stdin) != 1 || fread(&length, sizeof(length), 1, stdin) != 1 ||
        bytes_reserve(in, length) != TCA_OK)
        return false;
    if (length > 0 && fread(in->data, length, 1, stdin) != 1)
        return false;
    in->size = length;
    status = (signed char)answer(tokenizer, command, in, out);
    length = (uint32_t)out->size;
    return fwrite(&status, 1, 1, stdout) == 1 && fwrite(&length, sizeof(length), 1, stdout) == 1 &&
           fwrite(out->data, 1, length, stdout) == length && fflush(stdout) == 0;
}

int main(int argc, char **argv)
{
    struct bytes in = {0}, out = {0};
    struct tokenizer *tokenizer = NULL;
    struct tca_error error = {0};

    if (argc != 2 || tokenizer_open(argv[1], &tokenizer, &error) != TCA_OK) {
        fprintf(stderr, "tokenize: %s\n", argc == 2 ? error.text : "usage: tokenize FOLDER");
        return 1;
    }
    while (serve_one(tokenizer, &in, &out))
        continue;
    bytes_free(&in);
    bytes_free(&out);
    tokenizer_close(tokenizer);
    return 0;
}
