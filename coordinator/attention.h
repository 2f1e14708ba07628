/* Which tokens a question or a prefill attends to: what a request names, and what comes of it with
 * the server's defaults. Pure.
 *
 * A named rule wins over the server's. Without one, a question over fewer than `dense_below_tokens`
 * is dense, and so are a document's chunks that begin before that position. `tau` wins over `keep`,
 * a named one over the server's; where attention is dense neither has a say. A prompt is dense
 * unless it evicts. */
#ifndef COORDINATOR_ATTENTION_H
#define COORDINATOR_ATTENTION_H

#include "base/error.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The rules' names, those of kernels/select.h; NULL-terminated. */
extern const char *const attention_rules[];

/* One of attention_rules, NULL: no such rule. */
const char *attention_rule_find(const void *name, size_t bytes);

/* As a request names it. */
struct attention_wish {
    const char *rule; /* of attention_rules; NULL: none is named */
    double keep;      /* 0 to 1, 0: not named */
    double tau;       /* the same */
    bool evicts;
    bool reports_selection;
};

/* The server's, for questions or for prefills. */
struct attention_defaults {
    const char *rule;
    double keep;
    double tau; /* 0: off */
    int64_t dense_below_tokens;
    bool has_profile, has_tca_profile; /* see Ready in control.proto */
};

/* What the workers are told; all zeros is dense. */
struct attention {
    const char *rule; /* NULL: dense */
    double keep;      /* over 0, up to 1; with tau the server's: see admission_core_tokens() */
    double tau;       /* 0: budgets follow `keep` */
    bool evicts;
    bool reports_selection;
    int64_t dense_below_tokens; /* of a prefill */
};

/* Read the fields of AttentionOptions or PrefillOptions; `prefix` ("attention") stands before their
 * names in errors. TCA_ERR_INVALID: an unknown rule, a share outside 0 to 1, a share of dense. */
enum tca_status attention_wish_read(const char *prefix, ProtobufCBinaryData rule, double keep,
                                    double tau, struct attention_wish *wish_out,
                                    struct tca_error *error);

/* May it be of a question over a document, or of a prompt? TCA_ERR_INVALID: sparse, but a prompt
 * that does not evict; evict of a document, or with dense. */
enum tca_status attention_wish_check(const struct attention_wish *wish, bool has_document,
                                     struct tca_error *error);

/* Of a question over a document; document_tokens 0: of a prompt. TCA_ERR_PRECONDITION: it needs
 * what the server's profile has not. TCA_ERR_INVALID: evict, but the server's rule is dense. */
enum tca_status attention_of_question(const struct attention_wish *wish,
                                      const struct attention_defaults *defaults,
                                      int64_t document_tokens, struct attention *attention_out,
                                      struct tca_error *error);
/* Of a document's prefill. TCA_ERR_PRECONDITION as above. */
enum tca_status attention_of_prefill(const struct attention_wish *wish,
                                     const struct attention_defaults *defaults,
                                     struct attention *attention_out, struct tca_error *error);

#endif
