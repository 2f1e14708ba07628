/* The token sequences of a calibration: documents cut from the user's texts, with planted facts,
 * and questions about them. Rank 0 only.
 *
 * The texts are joined and tokenised once; each length takes the next piece of them. A document is
 * the chat format's prefix and text, of exactly its length. Facts stand after line ends, one in
 * each equal part of the document at a random depth. */
#ifndef CALIBRATE_DOCUMENTS_H
#define CALIBRATE_DOCUMENTS_H

#include "base/error.h"
#include "base/token_ids.h"
#include "model/profile.h"

#include <stddef.h>
#include <stdint.h>

enum { DOCUMENT_QUESTIONS_MAX = 16 };

/* One question as it is put to the model, with its answer behind it. */
struct calibration_question {
    struct token_ids ids; /* owned */
    int question_tokens;  /* the rest is the answer */
};

struct calibration_document {
    struct token_ids ids;                                         /* owned */
    struct calibration_question question[DOCUMENT_QUESTIONS_MAX]; /* owned */
    int questions;
};

struct documents_options {
    const char *model_folder; /* of the tokenizer */
    char *const *files;       /* UTF-8 texts */
    size_t file_count;
    const int64_t *lengths; /* [length_count] tokens */
    int length_count;
    int questions; /* of each document, 0 .. DOCUMENT_QUESTIONS_MAX; none without a chat format */
    uint64_t seed;
};

struct documents {
    struct calibration_document list[PROFILE_LENGTHS_MAX]; /* one of each length */
    int count;
};

/* TCA_ERR_NOT_FOUND, TCA_ERR_IO, TCA_ERR_INVALID: names the file;
 * TCA_ERR_RANGE: too little text. */
enum tca_status documents_make(const struct documents_options *options,
                               struct documents *documents_out, struct tca_error *error);
void documents_free(struct documents *documents); /* all zeros is a no-op */

#endif
