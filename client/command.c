#include "client/command.h"

#include "client/commands.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 32 };

#define ROW(field, ...)                                                                            \
    {                                                                                              \
        SETTING_FIELD(struct client_options, field), __VA_ARGS__                                   \
    }
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static const struct setting global_rows[] = {
    ROW(server, .name = "server", .metavar = "HOST:PORT",
        .help = "the coordinator (default $TCA_SERVER, else 127.0.0.1:50051)"),
    ROW(timeout_s, .name = "timeout", .metavar = "SECONDS",
        .help = "give up after so long, 0 for never"),
    ROW(json, .name = "json", .help = "print each response or event as one JSON object a line"),
};

#define RULES "dense, window, block, pooled, tca, tca-simpson, tca-mass"

static const struct setting put_rows[] = {
    ROW(id, .name = "id", .metavar = "ID",
        .help = "name of the document; an interrupted upload of it goes on where it ended"),
    ROW(rule, .name = "rule", .metavar = "RULE",
        .help = "which earlier tokens prefill attends to: " RULES),
    ROW(keep, .name = "keep", .metavar = "SHARE", .help = "share of them that it attends to"),
    ROW(raw, .name = "raw", .help = "no prefix of the chat format"),
    ROW(system, .name = "system", .metavar = "TEXT", .help = "text of the system turn"),
    ROW(pin, .name = "pin", .help = "never give its memory to another document"),
    ROW(token_ids, .name = "token-ids", .help = "the file holds 32-bit little-endian token ids"),
};

static const struct setting ask_rows[] = {
    ROW(max_tokens, .name = "max-tokens", .metavar = "N", .help = "longest answer (0: 256)"),
    ROW(temperature, .name = "temperature", .metavar = "T", .help = "0 is greedy"),
    ROW(top_k, .name = "top-k", .metavar = "N", .help = "sample from the N likeliest tokens"),
    ROW(top_p, .name = "top-p", .metavar = "P",
        .help = "sample from the likeliest tokens of mass P"),
    ROW(min_p, .name = "min-p", .metavar = "P",
        .help = "sample from tokens at least P times as likely as the likeliest"),
    ROW(repetition_penalty, .name = "repetition-penalty", .metavar = "X",
        .help = "over 1 makes earlier tokens less likely"),
    ROW(seed, .name = "seed", .metavar = "N",
        .help = "same seed, same tokens (0: the server picks)"),
    ROW(stop, .name = "stop", .metavar = "TEXT", .help = "end the answer before this text"),
    ROW(logprobs, .name = "logprobs", .metavar = "N",
        .help = "print each token's log-probability and the N best"),
    ROW(ignore_eos, .name = "ignore-eos", .help = "go on after an end token"),
    ROW(raw, .name = "raw", .help = "no chat template around the text"),
    ROW(parse_special, .name = "parse-special",
        .help = "names of special tokens in the text are control tokens"),
    ROW(rule, .name = "rule", .metavar = "RULE",
        .help = "which tokens of the document the answer reads: " RULES),
    ROW(keep, .name = "keep", .metavar = "SHARE",
        .help = "share of the document's tokens that it reads"),
    ROW(tau, .name = "tau", .metavar = "MASS",
        .help = "attention mass to retain, instead of a share of the tokens"),
    ROW(evict, .name = "evict",
        .help = "of a prompt without a document: keep so much of it, and free the other "
                "tokens' KV before the answer"),
    ROW(no_wait, .name = "no-wait", .help = "refuse rather than wait for a document's prefill"),
    /* The last: generate takes all but this. */
    ROW(heatmap, .name = "heatmap", .metavar = "FILE",
        .help = "draw which parts of the document each layer and head kept, as SVG; not written, "
                "with exit code 0, when a dense answer kept all"),
};

static const struct setting tokenize_rows[] = {
    ROW(parse_special, .name = "parse-special",
        .help = "names of special tokens in the text are control tokens"),
};

#define WITH(table) .rows = (table), .row_count = COUNT(table)
#define COMMAND(word, ...)                                                                         \
    {                                                                                              \
        .name = #word, .program = "tca " #word, .run = command_##word, __VA_ARGS__                 \
    }

static const struct command commands[] = {
    COMMAND(put, WITH(put_rows), .synopsis = "FILE", .arguments = 1,
            .summary = "upload a document and wait until it is ready (- is stdin)"),
    COMMAND(ask, WITH(ask_rows), .synopsis = "ID QUESTION", .arguments = 2,
            .summary = "ask a question about a document (- is stdin)"),
    COMMAND(generate, .rows = ask_rows, .row_count = COUNT(ask_rows) - 1, .synopsis = "PROMPT",
            .arguments = 1, .summary = "answer a prompt without a document (- is stdin)"),
    COMMAND(ls, .summary = "list the documents"),
    COMMAND(get, .synopsis = "ID", .arguments = 1, .summary = "show one document"),
    COMMAND(watch, .synopsis = "ID", .arguments = 1,
            .summary = "follow a document until it is ready"),
    COMMAND(pin, .synopsis = "ID", .arguments = 1,
            .summary = "never give a document's memory to another"),
    COMMAND(unpin, .synopsis = "ID", .arguments = 1, .summary = "undo pin"),
    COMMAND(rm, .synopsis = "ID", .arguments = 1, .summary = "delete a document"),
    COMMAND(tokenize, WITH(tokenize_rows), .synopsis = "TEXT", .arguments = 1,
            .summary = "print the token ids of a text (- is stdin)"),
    COMMAND(info, .summary = "show the server, its model and its workers"),
    COMMAND(health, .summary = "exit 0 only if the service is serving"),
    COMMAND(drain, .summary = "take no new work; the server stops when running questions end"),
};

_Static_assert(COUNT(global_rows) + COUNT(ask_rows) <= ROWS_MAX, "the largest command fits");

/* The options of a command, or (NULL) those before any command; `rows` holds them. */
static struct settings_table table_of(const struct command *command, struct setting rows[ROWS_MAX])
{
    struct settings_table table = {.program = "tca",
                                   .synopsis = "COMMAND [ARGUMENT]..",
                                   .rows = rows,
                                   .stops_at_positional = true};

    if (command != NULL) {
        table.program = command->program;
        table.synopsis = command->synopsis;
        table.stops_at_positional = false;
        table.count = command->row_count;
        for (size_t i = 0; i < command->row_count; i++)
            rows[i] = command->rows[i];
    }
    for (size_t i = 0; i < COUNT(global_rows); i++)
        rows[table.count++] = global_rows[i];
    return table;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COUNT(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Find the command's place in argv by reading the options before it; 0 if they ask for help. */
static enum tca_status locate_command(int argc, char *const *argv, int *place_out,
                                      enum settings_help *help_out, struct tca_error *error)
{
    struct setting rows[ROWS_MAX];
    struct settings_table table = table_of(NULL, rows);
    struct settings_arguments arguments;
    struct client_options options;

    TCA_TRY(settings_load(&table, argc, argv, &options, &arguments, error));
    *help_out = arguments.help;
    *place_out = argc - arguments.positionals;
    settings_free(&table, &options, &arguments);
    if (*help_out != SETTINGS_HELP_NONE)
        return TCA_OK;
    if (*place_out == argc)
        return tca_fail(error, TCA_ERR_INVALID, "a command is missing");
    return TCA_OK;
}

/* Every word but the command, which is argv[place]: options may stand before and after it. */
static enum tca_status read_words(const struct command *command, int argc, char *const *argv,
                                  int place, struct command_line *line, struct tca_error *error)
{
    struct setting rows[ROWS_MAX];
    struct settings_table table = table_of(command, rows);
    char **words = calloc((size_t)argc, sizeof(*words));
    enum tca_status status;

    if (words == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
    for (int i = 0; i < argc - 1; i++)
        words[i] = argv[i < place ? i : i + 1];
    memset(&line->options, 0, sizeof(line->options));
    status = settings_load(&table, argc - 1, words, &line->options, &line->arguments, error);
    free(words);
    if (status != TCA_OK || line->arguments.help != SETTINGS_HELP_NONE ||
        line->arguments.positionals == command->arguments)
        return status;
    status =
        tca_fail(error, TCA_ERR_INVALID, "%s takes %s: %d arguments given, allowed: %d",
                 command->name, command->synopsis, line->arguments.positionals, command->arguments);
    settings_free(&table, &line->options, &line->arguments);
    return status;
}

enum tca_status command_line_parse(int argc, char *const *argv, struct command_line *line_out,
                                   struct tca_error *error)
{
    int place;

    memset(line_out, 0, sizeof(*line_out));
    TCA_TRY(locate_command(argc, argv, &place, &line_out->arguments.help, error));
    if (line_out->arguments.help != SETTINGS_HELP_NONE)
        return TCA_OK;
    line_out->command = find_command(argv[place]);
    if (line_out->command == NULL)
        return tca_fail(error, TCA_ERR_INVALID, "unknown command \"%.80s\"", argv[place]);
    return read_words(line_out->command, argc, argv, place, line_out, error);
}

void command_line_free(struct command_line *line)
{
    struct setting rows[ROWS_MAX];
    struct settings_table table = table_of(line->command, rows);

    settings_free(&table, &line->options, &line->arguments);
}

void command_print_help(const struct command *command, enum settings_help help, FILE *out)
{
    struct setting rows[ROWS_MAX];
    struct settings_table table = table_of(command, rows);

    if (command != NULL && help == SETTINGS_HELP_TEXT)
        fprintf(out, "%s: %s\n", command->program, command->summary);
    settings_print_help(&table, help, out);
    if (command != NULL || help != SETTINGS_HELP_TEXT)
        return;
    fprintf(out, "\ncommands, each with --help:\n");
    for (size_t i = 0; i < COUNT(commands); i++)
        fprintf(out, "  %-9s %-12s %s\n", commands[i].name,
                commands[i].synopsis != NULL ? commands[i].synopsis : "", commands[i].summary);
    fprintf(out, "\nexit codes: 0 done, 1 refused or failed, 2 usage, 130 interrupted\n");
}
