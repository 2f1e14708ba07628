/* A program's settings: one table yields the command line, the config file, `--help`, the print of
 * what is in force, and the table of the documentation.
 *
 * A row's field decides its type, so the two cannot disagree (see SETTING_FIELD):
 *   bool  --name, --name=true|false      int64_t  whole number, or bytes with a suffix K, M, G, T
 *   double  decimal number               char *   text, owned by the struct, NULL when empty
 *   int or an enum  one of `choices`, as its index     struct setting_texts  text, repeatable
 * On the command line `--name VALUE` and `--name=VALUE` are the same, `--` ends the options, and
 * the last mention wins. A config file has `name = value` lines and lines that start with `#`. The
 * command line wins over the file, the file over the defaults. Not thread-safe. */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include "base/error.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum setting_type {
    SETTING_BOOL,
    SETTING_INT,
    SETTING_REAL,
    SETTING_TEXT,
    SETTING_TEXTS,
    SETTING_CHOICE,
};

struct setting_texts {
    char **items; /* owned, as are the texts */
    size_t count;
};

/* The first initialisers of a row: {SETTING_FIELD(struct options, threads), .name = "threads", ..}.
 * A field of a type that no setting has does not compile. */
#define SETTING_FIELD(structure, field)                                                            \
    .type = _Generic(((structure *)0)->field,                                                      \
        bool: SETTING_BOOL,                                                                        \
        int64_t: SETTING_INT,                                                                      \
        double: SETTING_REAL,                                                                      \
        char *: SETTING_TEXT,                                                                      \
        struct setting_texts: SETTING_TEXTS,                                                       \
        int: SETTING_CHOICE,                                                                       \
        unsigned: SETTING_CHOICE),                                                                 \
    .offset = offsetof(structure, field)

struct setting {
    enum setting_type type;
    size_t offset;
    const char *name;           /* "kv-memory", without dashes before it */
    const char *initial;        /* the default as a user would write it; NULL: false, 0, no text */
    const char *metavar;        /* "N"; shown in --help */
    const char *help;           /* one sentence, no full stop */
    int64_t min, max;           /* int64_t: the allowed range; both 0: any */
    double real_min, real_max;  /* double: the same */
    bool is_bytes;              /* int64_t: takes a suffix, powers of 1024 */
    const char *const *choices; /* int, enum: NULL-terminated; choices[i] is value i */
};

struct settings_table {
    const char *program;  /* "tca-coordinator" */
    const char *synopsis; /* what follows the options, e.g. "FILE"; NULL: no positional arguments */
    const struct setting *rows;
    size_t count;
    const char *config;       /* the text setting that names a config file; NULL: none */
    bool stops_at_positional; /* everything from the first positional argument on is positional */
};

enum settings_help { SETTINGS_HELP_NONE, SETTINGS_HELP_TEXT, SETTINGS_HELP_MARKDOWN };

/* What a command line holds beside settings. */
struct settings_arguments {
    enum settings_help help; /* --help, --help=markdown; then nothing else was read */
    char **positional;       /* owned array of borrowed elements of argv */
    int positionals;
};

/* Fill *values (uninitialised memory) from the defaults, then the config file, then argv[1..]. On
 * failure nothing is owned. TCA_ERR_INVALID: unknown name, bad value or syntax, with the file and
 * line where it was a file, the value and what is allowed. TCA_ERR_NOT_FOUND, TCA_ERR_IO: the
 * file. */
enum tca_status settings_load(const struct settings_table *table, int argc, char *const *argv,
                              void *values, struct settings_arguments *arguments_out,
                              struct tca_error *error);
void settings_free(const struct settings_table *table, void *values,
                   struct settings_arguments *arguments);

/* The answer to --help or --help=markdown (a table for docs/). */
void settings_print_help(const struct settings_table *table, enum settings_help help, FILE *out);

/* The main function of a program: load *values and run, answer --help, or say on stderr what is
 * wrong (2). Returns the exit code. */
int settings_run(const struct settings_table *table, int argc, char *const *argv, void *values,
                 int (*run)(const void *values, const struct settings_arguments *arguments));

/* What is in force, one `name = value` line each: a config file that gives the same values. */
void settings_print(const struct settings_table *table, const void *values, FILE *out);

/* "1 to 65535", "lru or refuse", "true or false", ..; cut to `bytes`. */
void setting_describe_allowed(const struct setting *setting, char *text_out, size_t bytes);

#endif
