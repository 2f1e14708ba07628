/* Cutting text into pre-tokens, within which byte pair encoding works: a sequence of regular
 * expressions, each applied to the pieces that the one before it left. Every match is a piece,
 * and so is what lies between matches. Filled once, then read-only. All zeros cuts nothing. */
#ifndef MODEL_PRE_TOKENIZER_H
#define MODEL_PRE_TOKENIZER_H

#include "base/error.h"
#include "base/status.h"

#include <stddef.h>

enum { PRE_TOKENIZER_STAGES_MAX = 8 };

struct pre_tokenizer {
    void *stages[PRE_TOKENIZER_STAGES_MAX]; /* pcre2_code, owned */
    int stage_count;
};

/* Append a stage in PCRE2's syntax (see pattern.h). TCA_ERR_INVALID: not a regular expression,
 * the reason is in *error; TCA_ERR_UNSUPPORTED: too many stages; TCA_ERR_NO_MEMORY. */
enum tca_status pre_tokenizer_add(struct pre_tokenizer *pre_tokenizer, const char *pattern,
                                  size_t bytes, struct tca_error *error);
void pre_tokenizer_free(struct pre_tokenizer *pre_tokenizer); /* back to all zeros */

/* What one thread needs to run the expressions. */
struct pre_tokenizer_run;
enum tca_status pre_tokenizer_run_create(const struct pre_tokenizer *pre_tokenizer,
                                         struct pre_tokenizer_run **run_out);
void pre_tokenizer_run_destroy(struct pre_tokenizer_run *run); /* NULL is a no-op */

/* Takes a pre-token of at least one byte; a failure ends the work. */
typedef enum tca_status (*pre_token_fn)(void *context, const char *text, size_t bytes);

/* Cut `text` (valid UTF-8) and pass the pre-tokens on in order. TCA_ERR_UNSUPPORTED: an
 * expression needs more backtracking than the limit of 10^9 steps on this text. */
enum tca_status pre_tokenizer_split(struct pre_tokenizer_run *run, const char *text, size_t bytes,
                                    pre_token_fn take, void *context);

#endif
