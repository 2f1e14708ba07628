#include "tests/support/check.h"

#include "coordinator/attention.h"
#include "kernels/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The server's, where a test changes nothing. */
static const struct attention_defaults server = {.rule = "pooled",
                                                 .keep = 0.03,
                                                 .dense_below_tokens = 8192,
                                                 .has_profile = true,
                                                 .has_tca_profile = true};

static enum tca_status read_wish(const char *rule, double keep, double tau,
                                 struct attention_wish *wish, struct tca_error *error)
{
    char name[128];
    ProtobufCBinaryData data = {.len = strlen(rule), .data = (uint8_t *)name};

    memcpy(name, rule, data.len);
    return attention_wish_read("attention", data, keep, tau, wish, error);
}

static void refuse_wish(const char *rule, double keep, double tau, const char *words)
{
    struct attention_wish wish;
    struct tca_error error;

    assert_int_equal(read_wish(rule, keep, tau, &wish, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, words));
}

static void the_names_are_those_of_the_workers(void **state)
{
    struct select_method method;
    size_t count = 0;

    (void)state;
    for (; attention_rules[count] != NULL; count++) {
        const char *rule = attention_rules[count];

        assert_true(select_method_parse(rule, strlen(rule), &method));
        assert_ptr_equal(attention_rule_find(rule, strlen(rule)), rule);
        /* What the code takes from a name. */
        assert_int_equal(strcmp(rule, "dense") == 0, method.rule == SELECT_DENSE);
        assert_int_equal(strncmp(rule, "tca", 3) == 0, method.rule == SELECT_TCA);
    }
    assert_int_equal(count, 7);
    assert_null(attention_rule_find("", 0));
    assert_null(attention_rule_find("tca-", 4));
    assert_null(attention_rule_find("dense", 4));
}

static void a_wish_is_read_and_checked(void **state)
{
    struct attention_wish wish;
    char long_name[66];

    (void)state;
    assert_int_equal(read_wish("", 0.0, 0.0, &wish, NULL), TCA_OK);
    assert_null(wish.rule);
    assert_int_equal(read_wish("tca-mass", 1.0, 1.0, &wish, NULL), TCA_OK);
    assert_string_equal(wish.rule, "tca-mass");
    assert_true(wish.keep == 1.0 && wish.tau == 1.0);
    assert_int_equal(read_wish("dense", 0.0, 0.0, &wish, NULL), TCA_OK);
    refuse_wish("magic", 0.0, 0.0,
                "attention.rule: \"magic\", allowed: dense, window, block, pooled, tca, "
                "tca-simpson or tca-mass");
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    refuse_wish(long_name, 0.0, 0.0, "attention.rule: 65 bytes, allowed: dense");
    refuse_wish("", -0.1, 0.0, "attention.keep: -0.1, allowed: 0 to 1");
    refuse_wish("", 1.1, 0.0, "attention.keep: 1.1, allowed: 0 to 1");
    refuse_wish("", (double)NAN, 0.0, "attention.keep: ");
    refuse_wish("", 0.0, (double)INFINITY, "attention.tau: inf, allowed: 0 to 1");
    refuse_wish("dense", 0.5, 0.0, "attention.keep: 0.5, allowed: 0 with attention.rule \"dense\"");
    refuse_wish("dense", 0.0, 0.9, "attention.tau: 0.9, allowed: 0 with attention.rule \"dense\"");
}

static void refuse_source(const struct attention_wish *wish, bool has_document, const char *words)
{
    struct tca_error error;

    assert_int_equal(attention_wish_check(wish, has_document, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, words));
}

static void a_prompt_is_sparse_only_when_it_evicts(void **state)
{
    static const struct attention_wish rule = {.rule = "block"}, keep = {.keep = 0.5},
                                       tau = {.tau = 0.5}, dense = {.rule = "dense"},
                                       evict = {.evicts = true},
                                       evict_dense = {.rule = "dense", .evicts = true},
                                       all = {"block", 0.5, 0.5, .evicts = true}, nothing = {0};
    const struct attention_wish *pass_document[] = {&rule, &keep, &tau, &dense, &nothing};
    const struct attention_wish *pass_prompt[] = {&dense, &evict, &all, &nothing};

    (void)state;
    for (size_t i = 0; i < sizeof(pass_document) / sizeof(*pass_document); i++)
        assert_int_equal(attention_wish_check(pass_document[i], true, NULL), TCA_OK);
    for (size_t i = 0; i < sizeof(pass_prompt) / sizeof(*pass_prompt); i++)
        assert_int_equal(attention_wish_check(pass_prompt[i], false, NULL), TCA_OK);
    refuse_source(&rule, false,
                  "attention.rule: \"block\", allowed: only with document_id or attention.evict");
    refuse_source(&keep, false, "attention.keep: 0.5, allowed: only with document_id or");
    refuse_source(&tau, false, "attention.tau: 0.5, allowed: only with document_id or");
    refuse_source(&evict, true, "attention.evict: true, allowed: only with prompt");
    refuse_source(&evict_dense, false, "attention.evict: true, allowed: only with a sparse");
}

/* A row: what is named over how many tokens (0: a prompt), and what comes of it. */
struct row {
    struct attention_wish wish;
    int64_t tokens;
    const char *rule; /* NULL: dense */
    double keep, tau;
};

static void expect_rows(const struct attention_defaults *defaults, const struct row *rows,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct row *row = &rows[i];
        struct attention attention;

        assert_int_equal(attention_of_question(&row->wish, defaults, row->tokens, &attention, NULL),
                         TCA_OK);
        if (row->rule == NULL)
            assert_null(attention.rule);
        else
            assert_string_equal(attention.rule, row->rule);
        assert_true(attention.keep == row->keep);
        assert_true(attention.tau == row->tau);
        assert_int_equal(attention.evicts, row->wish.evicts);
        assert_int_equal(attention.reports_selection,
                         row->rule != NULL && row->wish.reports_selection);
    }
}

static void a_named_rule_wins_and_the_rest_is_dense_when_short(void **state)
{
    static const struct row rows[] = {
        {{0}, 8192, "pooled", 0.03, 0.0},
        {{0}, 8191, NULL, 0.0, 0.0},
        {{0}, 0, NULL, 0.0, 0.0},
        {{.rule = "block"}, 8191, "block", 0.03, 0.0},
        {{.rule = "dense"}, 1000000, NULL, 0.0, 0.0},
        {{.rule = "dense"}, 0, NULL, 0.0, 0.0},
        {{.keep = 0.5}, 8192, "pooled", 0.5, 0.0},
        {{.keep = 0.5}, 8191, NULL, 0.0, 0.0},
        {{.tau = 0.9}, 8191, NULL, 0.0, 0.0},
        {{.reports_selection = true}, 8192, "pooled", 0.03, 0.0},
        {{.reports_selection = true}, 8191, NULL, 0.0, 0.0},
        {{.evicts = true}, 0, "pooled", 0.03, 0.0},
        {{.rule = "window", .keep = 0.2, .evicts = true}, 0, "window", 0.2, 0.0},
    };

    (void)state;
    expect_rows(&server, rows, sizeof(rows) / sizeof(*rows));
}

static void tau_wins_over_keep_and_both_over_the_server_s(void **state)
{
    static const struct row rows[] = {
        {{.tau = 0.9}, 10000, "pooled", 0.03, 0.9},
        {{.tau = 0.9, .keep = 0.5}, 10000, "pooled", 0.03, 0.9},
    };
    static const struct row rows_tau[] = {
        {{0}, 10000, "pooled", 0.03, 0.8},
        {{.tau = 0.9}, 10000, "pooled", 0.03, 0.9},
        {{.keep = 0.5}, 10000, "pooled", 0.5, 0.0},
        {{.rule = "dense"}, 10000, NULL, 0.0, 0.0},
    };
    static const struct row rows_dense[] = {
        {{0}, 10000, NULL, 0.0, 0.0},
        {{.keep = 0.5}, 10000, NULL, 0.0, 0.0},
        {{.rule = "tca"}, 10000, "tca", 0.03, 0.0},
    };
    struct attention_defaults defaults = server;

    (void)state;
    expect_rows(&defaults, rows, sizeof(rows) / sizeof(*rows));
    defaults.tau = 0.8;
    expect_rows(&defaults, rows_tau, sizeof(rows_tau) / sizeof(*rows_tau));
    defaults = server;
    defaults.rule = "dense";
    expect_rows(&defaults, rows_dense, sizeof(rows_dense) / sizeof(*rows_dense));
}

static void refuse(const struct attention_wish *wish, const struct attention_defaults *defaults,
                   int64_t tokens, enum tca_status status, const char *words)
{
    struct attention attention;
    struct tca_error error = {{0}};

    assert_int_equal(attention_of_question(wish, defaults, tokens, &attention, &error), status);
    assert_non_null(strstr(error.text, words));
}

static void what_needs_a_profile_says_so(void **state)
{
    const struct attention_wish nothing = {0}, tau = {.tau = 0.9}, pooled = {.rule = "pooled"};
    const char *const tca[] = {"tca", "tca-simpson", "tca-mass"};
    struct attention_defaults defaults = server;
    struct attention attention;

    (void)state;
    defaults.has_tca_profile = false;
    for (int i = 0; i < 3; i++) {
        const struct attention_wish wish = {.rule = tca[i]};

        refuse(&wish, &defaults, 100, TCA_ERR_PRECONDITION, "the profile knows nothing of it");
    }
    assert_int_equal(attention_of_question(&tau, &defaults, 10000, &attention, NULL), TCA_OK);
    defaults.has_profile = false;
    for (int i = 0; i < 3; i++) {
        const struct attention_wish wish = {.rule = tca[i]};

        refuse(&wish, &defaults, 10000, TCA_ERR_PRECONDITION, "no profile; run tca-calibrate");
    }
    refuse(&tau, &defaults, 10000, TCA_ERR_PRECONDITION, "tau 0.9: no profile; run tca-calibrate");
    refuse(&tau, &defaults, 100, TCA_ERR_PRECONDITION, "no profile; run tca-calibrate");
    assert_int_equal(attention_of_question(&pooled, &defaults, 10000, &attention, NULL), TCA_OK);
    defaults.tau = 0.8;
    refuse(&nothing, &defaults, 10000, TCA_ERR_PRECONDITION, "tau 0.8: no profile");
    assert_int_equal(attention_of_question(&nothing, &defaults, 100, &attention, NULL), TCA_OK);
}

static void evict_needs_a_sparse_rule(void **state)
{
    const struct attention_wish evict = {.evicts = true};
    struct attention_defaults defaults = server;

    (void)state;
    defaults.rule = "dense";
    refuse(&evict, &defaults, 0, TCA_ERR_INVALID, "attention.evict: true, allowed: only with a");
}

static void a_prefill_that_names_a_rule_is_sparse_from_its_start(void **state)
{
    const struct attention_wish nothing = {0}, rule = {.rule = "window"}, keep = {.keep = 0.4},
                                dense = {.rule = "dense"}, tca = {.rule = "tca"};
    struct attention_defaults defaults = server;
    struct attention attention;
    struct tca_error error;

    (void)state;
    defaults.rule = "block";
    defaults.keep = 0.1;
    assert_int_equal(attention_of_prefill(&nothing, &defaults, &attention, NULL), TCA_OK);
    assert_string_equal(attention.rule, "block");
    assert_true(attention.keep == 0.1);
    assert_int_equal(attention.dense_below_tokens, 8192);
    assert_int_equal(attention_of_prefill(&keep, &defaults, &attention, NULL), TCA_OK);
    assert_true(attention.keep == 0.4);
    assert_int_equal(attention.dense_below_tokens, 8192);
    assert_int_equal(attention_of_prefill(&rule, &defaults, &attention, NULL), TCA_OK);
    assert_string_equal(attention.rule, "window");
    assert_true(attention.keep == 0.1);
    assert_int_equal(attention.dense_below_tokens, 0);
    assert_int_equal(attention_of_prefill(&dense, &defaults, &attention, NULL), TCA_OK);
    assert_null(attention.rule);
    defaults.has_profile = false;
    assert_int_equal(attention_of_prefill(&nothing, &defaults, &attention, NULL), TCA_OK);
    assert_int_equal(attention_of_prefill(&tca, &defaults, &attention, &error),
                     TCA_ERR_PRECONDITION);
    assert_non_null(strstr(error.text, "rule tca: no profile; run tca-calibrate"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_names_are_those_of_the_workers),
        cmocka_unit_test(a_wish_is_read_and_checked),
        cmocka_unit_test(a_prompt_is_sparse_only_when_it_evicts),
        cmocka_unit_test(a_named_rule_wins_and_the_rest_is_dense_when_short),
        cmocka_unit_test(tau_wins_over_keep_and_both_over_the_server_s),
        cmocka_unit_test(what_needs_a_profile_says_so),
        cmocka_unit_test(evict_needs_a_sparse_rule),
        cmocka_unit_test(a_prefill_that_names_a_rule_is_sparse_from_its_start),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
