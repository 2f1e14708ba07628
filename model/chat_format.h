/* How a question is put to a model: which control tokens stand around document, question and
 * answer. Text of users is always encoded with special tokens as plain text; control tokens are
 * written by id, so nothing in a text can become one.
 *
 * One prompt is three runs of tokens, each encoded by itself:
 *   prefix    [system turn] + header of the user's turn            (part of the document's KV)
 *   document
 *   question  "\n\nQuestion: {question}" + end of turn + header of the assistant's turn
 * A follow-up question has history turns between: the first user text goes where the question
 * would, answers and later questions are whole turns, without "Question: ".
 *
 *           header of a turn                                   end of turn
 * ChatML    <|im_start|>{role}\n                               <|im_end|>\n
 * Llama 3   <|start_header_id|>{role}<|end_header_id|>\n\n      <|eot_id|>
 * none      "\nAnswer:" after a question on a document          -
 * Llama 3's prefix begins with <|begin_of_text|>. Without a format, an answer in the history
 * follows "\nAnswer: ", or stands on a line of its own when there is no document. */
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

/* A format whose control tokens (for Llama 3 these and <|eot_id|>) are special tokens of the
 * tokenizer. When it has those of both, the chat_template in `folder`'s tokenizer_config.json
 * decides, by the one whose header it writes; ChatML when there is none to ask. A template alone
 * makes no format: control tokens that are not special could be written by users. */
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
