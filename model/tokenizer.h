/* Byte-level BPE as Hugging Face's `tokenizers` does it, from a folder's tokenizer.json:
 * Llama 3, Qwen2/2.5/3, SmolLM2, needle-9m. Same ids as that library.
 *
 * Read-only after open: any number of threads may encode and decode at once. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "base/token_ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* TCA_ERR_NOT_FOUND, TCA_ERR_INVALID, TCA_ERR_UNSUPPORTED: names the file, key and value. */
enum tca_status tokenizer_open(const char *folder, struct tokenizer **tokenizer_out,
                               struct tca_error *error);
void tokenizer_close(struct tokenizer *tokenizer); /* NULL is a no-op */

/* One past the largest id, added tokens included. */
int32_t tokenizer_vocab(const struct tokenizer *tokenizer);

/* Append the ids of `text` (valid UTF-8; NUL is a character like any other) to *ids_out.
 * parse_special: special tokens' texts become their ids; otherwise they are plain text
 * (`tokenizers` with encode_special_tokens = True). Nothing is added before or after.
 * Non-special added tokens are found in any text, as `tokenizers` does. Time is linear in `bytes`.
 * On failure *ids_out is as before. TCA_ERR_INVALID: not UTF-8; TCA_ERR_RANGE: 2 GiB or more;
 * TCA_ERR_UNSUPPORTED: the pre-tokenizer's pattern backtracks without end on this text;
 * TCA_ERR_NO_MEMORY. */
enum tca_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes,
                                 bool parse_special, struct token_ids *ids_out);

/* The same in pieces, for a document that is longer than one call should take: `done` is called
 * after about every `step_bytes` of text with the bytes consumed; false stops the work with
 * TCA_ERR_CANCELLED. Never called within a pre-token: 4 MB without a space are one, and take about
 * 0.3 s. Special tokens are plain text. The ids are those of one call. */
typedef bool (*tokenizer_progress_fn)(void *context, size_t bytes_done);
enum tca_status tokenizer_encode_long(const struct tokenizer *tokenizer, const char *text,
                                      size_t bytes, size_t step_bytes, tokenizer_progress_fn done,
                                      void *context, struct token_ids *ids_out);

/* The id of a token by its exact text, -1 when there is none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text);
bool tokenizer_has(const struct tokenizer *tokenizer, int32_t id);
bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);

/* Append the bytes of one token (of a token that is only an added one: its text); nothing for an
 * id outside the vocabulary, and nothing for a special token unless keep_special. */
enum tca_status tokenizer_decode(const struct tokenizer *tokenizer, int32_t id, bool keep_special,
                                 struct bytes *text_out);

/* Streaming decode: whole UTF-8 characters only. All zeros is the start of a text. */
struct token_stream {
    char held[4];
    int held_bytes;
};
/* Append what became whole; bytes that can no longer become a character turn into U+FFFD, and so
 * does an id outside the vocabulary: models have some without text behind it. */
enum tca_status token_stream_push(struct token_stream *stream, const struct tokenizer *tokenizer,
                                  int32_t id, struct bytes *text_out);
/* End of text: an unfinished character turns into U+FFFD. */
enum tca_status token_stream_finish(struct token_stream *stream, struct bytes *text_out);

#endif
