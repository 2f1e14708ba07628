/* The commands of `tca` and what a command line says: which command, with which options. */
#ifndef CLIENT_COMMAND_H
#define CLIENT_COMMAND_H

#include "base/settings.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct session;

/* Every command's options; those that a command does not take stay zero. Zeros and NULL mean the
 * server's defaults. */
struct client_options {
    char *server; /* NULL: not given */
    double timeout_s;
    bool json;

    char *id; /* put */
    char *system;
    bool pin;
    bool token_ids;

    bool raw; /* put, ask, generate */
    char *rule;
    double keep;

    int64_t max_tokens; /* ask, generate */
    double temperature;
    int64_t top_k;
    double top_p;
    double min_p;
    double repetition_penalty;
    char *seed; /* as written: seeds are unsigned 64-bit numbers */
    struct setting_texts stop;
    int64_t logprobs;
    bool ignore_eos;
    bool no_wait; /* ask */
    double tau;
    bool evict;
    char *heatmap; /* ask, not generate: a prompt is no document */

    bool parse_special; /* ask, generate, tokenize */
};

/* Exit codes of every command. */
enum {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1, /* refused or failed */
    EXIT_USAGE = 2,
    EXIT_INTERRUPTED = 130, /* Ctrl-C: the call was cancelled on the server */
};

struct command {
    const char *name;
    const char *program;  /* "tca " and the name */
    const char *synopsis; /* of its positional arguments, NULL for none */
    const char *summary;
    int arguments; /* how many, exactly */
    const struct setting *rows;
    size_t row_count;
    int (*run)(struct session *session, const struct client_options *options,
               char *const *arguments);
};

struct command_line {
    const struct command *command; /* NULL: only if help is asked for */
    struct client_options options;
    struct settings_arguments arguments;
};

/* Read a command line. TCA_ERR_INVALID: a usage error, described. Free on success. */
enum tca_status command_line_parse(int argc, char *const *argv, struct command_line *line_out,
                                   struct tca_error *error);
void command_line_free(struct command_line *line);

/* The answer to --help: of a command, or (NULL) of the program. */
void command_print_help(const struct command *command, enum settings_help help, FILE *out);

#endif
