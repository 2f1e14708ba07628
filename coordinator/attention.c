#include "coordinator/attention.h"

#include <string.h>

enum { RULE_BYTES_MAX = 64 };

static const char rules_allowed[] = "dense, window, block, pooled, tca, tca-simpson or tca-mass";

const char *const attention_rules[] = {"dense", "window",      "block",    "pooled",
                                       "tca",   "tca-simpson", "tca-mass", NULL};

const char *attention_rule_find(const void *name, size_t bytes)
{
    for (const char *const *rule = attention_rules; *rule != NULL; rule++)
        if (strlen(*rule) == bytes && memcmp(*rule, name, bytes) == 0)
            return *rule;
    return NULL;
}

static bool is_dense(const char *rule)
{
    return strcmp(rule, "dense") == 0;
}

static bool is_tca(const char *rule)
{
    return strncmp(rule, "tca", 3) == 0;
}

static enum tca_status read_rule(const char *prefix, ProtobufCBinaryData rule,
                                 const char **rule_out, struct tca_error *error)
{
    *rule_out = NULL;
    if (rule.len == 0)
        return TCA_OK;
    *rule_out = attention_rule_find(rule.data, rule.len);
    if (*rule_out != NULL)
        return TCA_OK;
    if (rule.len > RULE_BYTES_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "%s.rule: %zu bytes, allowed: %s", prefix, rule.len,
                        rules_allowed);
    return tca_fail(error, TCA_ERR_INVALID, "%s.rule: \"%.*s\", allowed: %s", prefix, (int)rule.len,
                    (const char *)rule.data, rules_allowed);
}

static enum tca_status check_share(const char *prefix, const char *field, double share,
                                   const char *rule, struct tca_error *error)
{
    if (!(share >= 0.0 && share <= 1.0)) /* NaN too */
        return tca_fail(error, TCA_ERR_INVALID, "%s.%s: %g, allowed: 0 to 1", prefix, field, share);
    if (share != 0.0 && rule != NULL && is_dense(rule))
        return tca_fail(error, TCA_ERR_INVALID,
                        "%s.%s: %g, allowed: 0 with %s.rule \"dense\", which keeps everything",
                        prefix, field, share, prefix);
    return TCA_OK;
}

enum tca_status attention_wish_read(const char *prefix, ProtobufCBinaryData rule, double keep,
                                    double tau, struct attention_wish *wish_out,
                                    struct tca_error *error)
{
    struct attention_wish wish = {.keep = keep, .tau = tau};

    TCA_TRY(read_rule(prefix, rule, &wish.rule, error));
    TCA_TRY(check_share(prefix, "keep", keep, wish.rule, error));
    TCA_TRY(check_share(prefix, "tau", tau, wish.rule, error));
    *wish_out = wish;
    return TCA_OK;
}

enum tca_status attention_wish_check(const struct attention_wish *wish, bool has_document,
                                     struct tca_error *error)
{
    static const char allowed[] = "allowed: only with document_id or attention.evict";
    const bool names_dense = wish->rule != NULL && is_dense(wish->rule);

    if (wish->evicts && has_document)
        return tca_fail(error, TCA_ERR_INVALID,
                        "attention.evict: true, allowed: only with prompt, a document is shared");
    if (wish->evicts && names_dense)
        return tca_fail(error, TCA_ERR_INVALID,
                        "attention.evict: true, allowed: only with a sparse attention.rule, not "
                        "\"dense\"");
    if (has_document || wish->evicts)
        return TCA_OK;
    if (wish->rule != NULL && !names_dense)
        return tca_fail(error, TCA_ERR_INVALID, "attention.rule: \"%s\", %s", wish->rule, allowed);
    if (wish->keep > 0.0)
        return tca_fail(error, TCA_ERR_INVALID, "attention.keep: %g, %s", wish->keep, allowed);
    if (wish->tau > 0.0)
        return tca_fail(error, TCA_ERR_INVALID, "attention.tau: %g, %s", wish->tau, allowed);
    return TCA_OK;
}

/* tau is read off a profile's curves, tca off its log-Gaussian. */
static enum tca_status check_profile(const char *rule, double tau,
                                     const struct attention_defaults *defaults,
                                     struct tca_error *error)
{
    if (tau > 0.0 && !defaults->has_profile)
        return tca_fail(error, TCA_ERR_PRECONDITION, "tau %g: no profile; run tca-calibrate", tau);
    if (!is_tca(rule) || (defaults->has_profile && defaults->has_tca_profile))
        return TCA_OK;
    return tca_fail(error, TCA_ERR_PRECONDITION, "rule %s: %s; run tca-calibrate", rule,
                    defaults->has_profile ? "the profile knows nothing of it" : "no profile");
}

enum tca_status attention_of_question(const struct attention_wish *wish,
                                      const struct attention_defaults *defaults,
                                      int64_t document_tokens, struct attention *attention_out,
                                      struct tca_error *error)
{
    const bool names_share = wish->keep > 0.0 || wish->tau > 0.0;
    const char *rule = wish->rule != NULL ? wish->rule : defaults->rule;
    const double tau = names_share ? wish->tau : defaults->tau;
    const bool is_short =
        wish->rule == NULL && !wish->evicts && document_tokens < defaults->dense_below_tokens;

    *attention_out = (struct attention){0};
    if (document_tokens == 0 && !wish->evicts)
        return TCA_OK;
    if (is_dense(rule) && wish->evicts)
        return tca_fail(error, TCA_ERR_INVALID,
                        "attention.evict: true, allowed: only with a sparse attention.rule, the "
                        "server's is dense");
    /* What is named and can never be has its error over short documents too. */
    if (is_dense(rule) || (is_short && wish->tau == 0.0))
        return TCA_OK;
    TCA_TRY(check_profile(rule, tau, defaults, error));
    if (is_short)
        return TCA_OK;
    *attention_out = (struct attention){
        .rule = rule,
        .keep = wish->keep > 0.0 && tau == 0.0 ? wish->keep : defaults->keep,
        .tau = tau,
        .evicts = wish->evicts,
        .reports_selection = wish->reports_selection,
    };
    return TCA_OK;
}

enum tca_status attention_of_prefill(const struct attention_wish *wish,
                                     const struct attention_defaults *defaults,
                                     struct attention *attention_out, struct tca_error *error)
{
    const char *rule = wish->rule != NULL ? wish->rule : defaults->rule;

    *attention_out = (struct attention){0};
    if (is_dense(rule))
        return TCA_OK;
    TCA_TRY(check_profile(rule, 0.0, defaults, error));
    *attention_out = (struct attention){
        .rule = rule,
        .keep = wish->keep > 0.0 ? wish->keep : defaults->keep,
        .dense_below_tokens = wish->rule != NULL ? 0 : defaults->dense_below_tokens,
    };
    return TCA_OK;
}
