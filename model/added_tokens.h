/* Tokens that are found in the text as they stand, before pre-tokenising: control tokens and
 * other added ones. Filled once, then read-only. All zeros is none. */
#ifndef MODEL_ADDED_TOKENS_H
#define MODEL_ADDED_TOKENS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct added_token {
    char *text; /* owned; at least one byte */
    size_t bytes;
    int32_t id;
    bool is_special;     /* plain text unless special tokens are parsed */
    bool is_single_word; /* only where no word character touches it */
    bool strips_left;    /* takes the white space before it along */
    bool strips_right;
};

struct added_tokens {
    struct added_token *tokens; /* [count], owned; in order of their texts once sorted */
    size_t count, capacity;
    bool has_plain; /* one at least is not special */
    bool is_first_byte[256];
};

/* Copies the text. TCA_ERR_NO_MEMORY. */
enum tca_status added_tokens_add(struct added_tokens *added, const struct added_token *token);
void added_tokens_sort(struct added_tokens *added); /* once, before the first search */
void added_tokens_free(struct added_tokens *added); /* back to all zeros */

struct added_match {
    const struct added_token *token;
    size_t start, end; /* bytes; with the white space that the token takes along */
};

/* The next token in `text` at or after *at, the longest of those that start first; *at moves
 * behind it. `done` is the end of the previous match. False: there is none. */
bool added_tokens_next(const struct added_tokens *added, const char *text, size_t bytes,
                       bool parse_special, size_t done, size_t *at, struct added_match *match_out);

#endif
