/* Reading tokenizer.json into the parts of a tokenizer. */
#ifndef MODEL_TOKENIZER_JSON_H
#define MODEL_TOKENIZER_JSON_H

#include "base/error.h"
#include "base/status.h"
#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/pre_tokenizer.h"
#include "model/vocabulary.h"

#include <stdbool.h>
#include <stdint.h>

enum token_flag {
    TOKEN_IS_SPECIAL = 1,
    TOKEN_IS_LITERAL = 2, /* only an added token: its text is no byte alphabet */
};

/* Text passes through these in order: added tokens as they stand, the normaliser, added tokens
 * of normalised text, the pre-tokenizer, byte pair encoding. Read-only once read. */
struct tokenizer {
    struct vocabulary vocabulary; /* added tokens included */
    struct added_tokens raw;      /* found before the normaliser */
    struct added_tokens normalized;
    bool has_nfc;
    struct pre_tokenizer pre_tokenizer;
    bool ignores_merges; /* a pre-token that is a token is that token */
    struct bpe bpe;
    uint8_t *flags; /* [vocabulary.ids] of enum token_flag, owned */
};

/* Fill *tokenizer, all zeros before; on failure what was filled is the caller's to free.
 * TCA_ERR_NOT_FOUND, TCA_ERR_INVALID, TCA_ERR_UNSUPPORTED: names the file, key and value. */
enum tca_status tokenizer_json_read(const char *path, struct tokenizer *tokenizer,
                                    struct tca_error *error);

#endif
