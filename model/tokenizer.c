#include "model/tokenizer.h"

#include "base/utf8.h"
#include "model/byte_alphabet.h"
#include "model/nfc.h"
#include "model/tokenizer_json.h"
#include "model/word_cache.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One call of tokenizer_encode. */
struct encoding {
    const struct tokenizer *tokenizer;
    bool parse_special;
    struct token_ids *ids; /* borrowed */
    struct pre_tokenizer_run *run;
    struct word_cache words;
    struct bpe_scratch scratch;
    struct bytes mapped; /* a pre-token in the byte alphabet */
    /* Progress: bytes of the text as it came. A stretch that was normalised counts in proportion,
     * and is followed by its own length. */
    tokenizer_progress_fn done;
    void *context;
    size_t step_bytes, next_step;
    size_t consumed;                          /* before the present stretch */
    size_t stretch_bytes, stretch_normalized; /* its length before and after */
    const char *stretch;                      /* after */
};

enum tca_status tokenizer_open(const char *folder, struct tokenizer **tokenizer_out,
                               struct tca_error *error)
{
    char path[PATH_MAX];
    struct tokenizer *tokenizer;
    enum tca_status status;

    if (snprintf(path, sizeof(path), "%s/tokenizer.json", folder) >= (int)sizeof(path))
        return tca_fail(error, TCA_ERR_INVALID, "%.200s...: the path is too long", folder);
    tokenizer = calloc(1, sizeof(*tokenizer));
    if (tokenizer == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", path);
    status = tokenizer_json_read(path, tokenizer, error);
    if (status != TCA_OK) {
        tokenizer_close(tokenizer);
        return status;
    }
    *tokenizer_out = tokenizer;
    return TCA_OK;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    vocabulary_free(&tokenizer->vocabulary);
    added_tokens_free(&tokenizer->raw);
    added_tokens_free(&tokenizer->normalized);
    pre_tokenizer_free(&tokenizer->pre_tokenizer);
    bpe_free(&tokenizer->bpe);
    free(tokenizer->flags);
    free(tokenizer);
}

int32_t tokenizer_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->vocabulary.ids;
}

bool tokenizer_has(const struct tokenizer *tokenizer, int32_t id)
{
    size_t bytes;

    return vocabulary_text(&tokenizer->vocabulary, id, &bytes) != NULL;
}

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text)
{
    return vocabulary_find(&tokenizer->vocabulary, text, strlen(text));
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->vocabulary.ids &&
           (tokenizer->flags[id] & TOKEN_IS_SPECIAL) != 0;
}

enum tca_status tokenizer_decode(const struct tokenizer *tokenizer, int32_t id, bool keep_special,
                                 struct bytes *text_out)
{
    size_t bytes, decoded;
    const char *text = vocabulary_text(&tokenizer->vocabulary, id, &bytes);

    if (text == NULL || (!keep_special && tokenizer_is_special(tokenizer, id)))
        return TCA_OK;
    if ((tokenizer->flags[id] & TOKEN_IS_LITERAL) != 0)
        return bytes_append(text_out, text, bytes);
    TCA_TRY(bytes_reserve(text_out, text_out->size + bytes));
    if (!byte_alphabet_decode(text, bytes, (char *)text_out->data + text_out->size, &decoded))
        return bytes_append(text_out, text, bytes); /* as `tokenizers` does */
    text_out->size += decoded;
    return TCA_OK;
}

/* The id of a pre-token that is a token as a whole, -1: it is none. */
static enum tca_status find_whole(struct encoding *encoding, const char *word, size_t bytes,
                                  int32_t *id_out)
{
    bytes_clear(&encoding->mapped);
    TCA_TRY(bytes_reserve(&encoding->mapped, 2 * bytes));
    for (size_t i = 0; i < bytes; i++)
        encoding->mapped.size += byte_alphabet_encode(
            (uint8_t)word[i], (char *)encoding->mapped.data + encoding->mapped.size);
    *id_out = vocabulary_find(&encoding->tokenizer->vocabulary, (char *)encoding->mapped.data,
                              encoding->mapped.size);
    return TCA_OK;
}

static enum tca_status encode_word(struct encoding *encoding, const char *word, size_t bytes)
{
    int32_t whole = -1;

    if (encoding->tokenizer->ignores_merges)
        TCA_TRY(find_whole(encoding, word, bytes, &whole));
    return whole >= 0 ? token_ids_append(encoding->ids, &whole, 1)
                      : bpe_encode(&encoding->tokenizer->bpe, word, bytes, &encoding->scratch,
                                   encoding->ids);
}

/* After a word that ends at `end` of the present stretch. */
static enum tca_status report_progress(struct encoding *encoding, const char *end)
{
    const size_t offset = (size_t)(end - encoding->stretch);
    size_t consumed = encoding->consumed + offset;

    if (encoding->stretch_normalized != encoding->stretch_bytes)
        consumed = encoding->consumed + (size_t)((double)offset * (double)encoding->stretch_bytes /
                                                 (double)encoding->stretch_normalized);
    if (consumed < encoding->next_step)
        return TCA_OK;
    encoding->next_step = consumed + encoding->step_bytes;
    return encoding->done(encoding->context, consumed) ? TCA_OK : TCA_ERR_CANCELLED;
}

static enum tca_status take_word(void *context, const char *word, size_t bytes)
{
    struct encoding *encoding = context;
    const size_t first = encoding->ids->count;
    struct word_cache_slot *slot;
    bool is_hit;

    if (bytes > WORD_CACHE_BYTES) {
        TCA_TRY(encode_word(encoding, word, bytes));
    } else {
        slot = word_cache_find(&encoding->words, word, bytes, &is_hit);
        if (is_hit) {
            TCA_TRY(token_ids_append(encoding->ids, slot->ids, slot->count));
        } else {
            TCA_TRY(encode_word(encoding, word, bytes));
            word_cache_fill(slot, encoding->ids->ids + first, encoding->ids->count - first);
        }
    }
    return encoding->done == NULL ? TCA_OK : report_progress(encoding, word + bytes);
}

/* A function that encodes what stands between added tokens. */
typedef enum tca_status (*between_fn)(struct encoding *encoding, const char *text, size_t bytes);

static enum tca_status split_added(struct encoding *encoding, const struct added_tokens *added,
                                   const char *text, size_t bytes, between_fn between)
{
    struct added_match match;
    size_t done = 0, at = 0;

    while (added_tokens_next(added, text, bytes, encoding->parse_special, done, &at, &match)) {
        if (match.start > done)
            TCA_TRY(between(encoding, text + done, match.start - done));
        TCA_TRY(token_ids_append(encoding->ids, &match.token->id, 1));
        done = match.end;
    }
    return done < bytes ? between(encoding, text + done, bytes - done) : TCA_OK;
}

static enum tca_status encode_normalized(struct encoding *encoding, const char *text, size_t bytes)
{
    return pre_tokenizer_split(encoding->run, text, bytes, take_word, encoding);
}

static enum tca_status encode_stretch(struct encoding *encoding, const char *text, size_t bytes,
                                      size_t raw_bytes)
{
    encoding->stretch = text;
    encoding->stretch_bytes = raw_bytes;
    encoding->stretch_normalized = bytes;
    TCA_TRY(
        split_added(encoding, &encoding->tokenizer->normalized, text, bytes, encode_normalized));
    encoding->consumed += raw_bytes;
    return TCA_OK;
}

static enum tca_status encode_raw(struct encoding *encoding, const char *text, size_t bytes)
{
    struct bytes normalized = {0};
    enum tca_status status;

    if (!encoding->tokenizer->has_nfc || nfc_is_certain(text, bytes))
        return encode_stretch(encoding, text, bytes, bytes);
    status = nfc_append(text, bytes, &normalized);
    if (status == TCA_OK)
        status = encode_stretch(encoding, (const char *)normalized.data, normalized.size, bytes);
    bytes_free(&normalized);
    return status;
}

static enum tca_status encode(struct encoding *encoding, const char *text, size_t bytes)
{
    const size_t first = encoding->ids->count;
    enum tca_status status = TCA_ERR_NO_MEMORY;

    if (bytes == 0)
        return TCA_OK;
    if (bytes > INT32_MAX)
        return TCA_ERR_RANGE;
    if (!utf8_is_valid(text, bytes))
        return TCA_ERR_INVALID;
    if (pre_tokenizer_run_create(&encoding->tokenizer->pre_tokenizer, &encoding->run) == TCA_OK &&
        word_cache_init(&encoding->words, bytes) == TCA_OK)
        status = split_added(encoding, &encoding->tokenizer->raw, text, bytes, encode_raw);
    if (status != TCA_OK)
        encoding->ids->count = first;
    pre_tokenizer_run_destroy(encoding->run);
    word_cache_deinit(&encoding->words);
    bpe_scratch_free(&encoding->scratch);
    bytes_free(&encoding->mapped);
    return status;
}

enum tca_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes,
                                 bool parse_special, struct token_ids *ids_out)
{
    struct encoding encoding = {
        .tokenizer = tokenizer, .parse_special = parse_special, .ids = ids_out};

    return encode(&encoding, text, bytes);
}

enum tca_status tokenizer_encode_long(const struct tokenizer *tokenizer, const char *text,
                                      size_t bytes, size_t step_bytes, tokenizer_progress_fn done,
                                      void *context, struct token_ids *ids_out)
{
    struct encoding encoding = {.tokenizer = tokenizer,
                                .ids = ids_out,
                                .done = done,
                                .context = context,
                                .step_bytes = step_bytes,
                                .next_step = step_bytes};

    return encode(&encoding, text, bytes);
}
