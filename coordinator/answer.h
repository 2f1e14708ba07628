/* The answer of one question: sampled tokens in, text that may be shown out.
 *
 * Tokens become whole UTF-8 characters, stop strings are found across token boundaries and not
 * shown, and what the client has not been sent yet is kept until it can be. Pure. */
#ifndef COORDINATOR_ANSWER_H
#define COORDINATOR_ANSWER_H

#include "base/bytes.h"
#include "coordinator/stop_text.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ANSWER_CHANCES_MAX = 20 };

struct token_chance {
    int32_t token_id;
    float logprob;
};

struct answer_token {
    struct token_chance chosen;
    int best_count;
    struct token_chance best[ANSWER_CHANCES_MAX]; /* most likely first */
};

struct answer {
    const struct tokenizer *tokenizer; /* borrowed */
    struct token_stream stream;
    struct stop_text stop;       /* owned */
    int64_t tokens;              /* taken so far */
    bool is_stopped;             /* a stop string is complete: nothing more is taken */
    struct bytes unsent_text;    /* owned */
    struct answer_token *unsent; /* owned, [unsent_count] */
    size_t unsent_count, unsent_capacity;
};

void answer_free(struct answer *answer); /* back to all zeros */

/* Take the next token; does nothing once it is stopped. TCA_ERR_NO_MEMORY. */
enum tca_status answer_push(struct answer *answer, const struct answer_token *token);
/* No more tokens come: release held text and an unfinished character (as U+FFFD). */
enum tca_status answer_finish(struct answer *answer);

/* Forget the unsent text and the first `tokens` unsent tokens: they are sent. */
void answer_sent(struct answer *answer, size_t tokens);

#endif
