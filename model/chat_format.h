/* How a question is put to a model: which control tokens stand around document, question and
 * answer. Recognised from the tokenizer's special tokens (and chat_template, where given):
 * ChatML, Llama 3, or none. User text is always encoded with special tokens as plain text;
 * only the pieces written here become control tokens.
 *
 * One prompt is three runs of tokens, each encoded by itself:
 *   prefix    [system turn] + header of the user's turn            (part of the document's KV)
 *   document
 *   question  "\n\nQuestion: {question}" + end of turn + header of the assistant's turn
 * A follow-up question has history turns between: the first user text goes where the question
 * would, answers and later questions are whole turns. */
#ifndef MODEL_CHAT_FORMAT_H
#define MODEL_CHAT_FORMAT_H

#include "base/token_ids.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

enum chat_format { CHAT_FORMAT_NONE, CHAT_FORMAT_CHATML, CHAT_FORMAT_LLAMA3 };

struct chat_text {
    const char *data; /* borrowed */
    size_t bytes;
};

struct chat_turn {
    bool is_assistant;
    struct chat_text text;
};

/* `folder` may hold a tokenizer_config.json with a chat_template. */
enum chat_format chat_format_detect(const char *folder, const struct tokenizer *tokenizer);
const char *chat_format_name(enum chat_format format); /* "none", "chatml", "llama3" */

/* Append the prefix: begin-of-text where the format has one, the system turn when its text is
 * not empty (FORMAT_NONE: the text itself), the header of the user's turn. */
enum tca_status chat_format_prefix(enum chat_format format, const struct tokenizer *tokenizer,
                                   struct chat_text system, struct token_ids *ids_out);

/* Append everything after the document. has_document: the question follows a document ("\n\n
 * Question: "), else it is the user's text as it is. */
enum tca_status chat_format_question(enum chat_format format, const struct tokenizer *tokenizer,
                                     bool has_document, const struct chat_turn *history,
                                     size_t turns, struct chat_text question,
                                     struct token_ids *ids_out);

/* The format's end-of-turn token, -1 when it has none. */
int32_t chat_format_end_token(enum chat_format format, const struct tokenizer *tokenizer);

#endif
