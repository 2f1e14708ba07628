#include "base/settings.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ALLOWED_BYTES = 160 };

static void *field_of(const struct setting *setting, void *values)
{
    return (char *)values + setting->offset;
}

static const struct setting *find(const struct settings_table *table, const char *name,
                                  size_t name_bytes)
{
    for (size_t i = 0; i < table->count; i++)
        if (strlen(table->rows[i].name) == name_bytes &&
            memcmp(table->rows[i].name, name, name_bytes) == 0)
            return &table->rows[i];
    return NULL;
}

static void texts_free(struct setting_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        free(texts->items[i]);
    free(texts->items);
    *texts = (struct setting_texts){0};
}

static void field_free(const struct setting *setting, void *values)
{
    if (setting->type == SETTING_TEXT)
        free(*(char **)field_of(setting, values));
    if (setting->type == SETTING_TEXTS)
        texts_free(field_of(setting, values));
}

static bool parse_bool(const char *text, bool *value_out)
{
    *value_out = strcmp(text, "true") == 0;
    return *value_out || strcmp(text, "false") == 0;
}

/* Bits to shift for K, M, G, T; -1 for anything else. */
static int suffix_shift(const char *suffix)
{
    static const char letters[] = "KMGT";
    const char *letter;

    if (suffix[0] == '\0')
        return 0;
    letter = strchr(letters, suffix[0]);
    return letter != NULL && suffix[1] == '\0' ? 10 * (int)(letter - letters + 1) : -1;
}

static bool parse_int(const struct setting *setting, const char *text, int64_t *value_out)
{
    char *end;
    long long value;
    int shift;

    if (strchr("+-0123456789", text[0]) == NULL)
        return false; /* strtoll would skip spaces */
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text)
        return false;
    shift = setting->is_bytes ? suffix_shift(end) : (*end == '\0' ? 0 : -1);
    if (shift < 0 || value > (INT64_MAX >> shift) || value < -(INT64_MAX >> shift))
        return false;
    *value_out = value * ((int64_t)1 << shift);
    return (setting->min == 0 && setting->max == 0) ||
           (*value_out >= setting->min && *value_out <= setting->max);
}

static bool parse_real(const struct setting *setting, const char *text, double *value_out)
{
    char *end;

    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text))
        return false; /* strtod would take spaces, hexadecimal, inf and nan */
    *value_out = strtod(text, &end);
    if (end == text || *end != '\0' || *value_out - *value_out != 0)
        return false;
    return (setting->real_min == 0 && setting->real_max == 0) ||
           (*value_out >= setting->real_min && *value_out <= setting->real_max);
}

static bool parse_choice(const struct setting *setting, const char *text, int *value_out)
{
    for (int i = 0; setting->choices[i] != NULL; i++)
        if (strcmp(setting->choices[i], text) == 0) {
            *value_out = i;
            return true;
        }
    return false;
}

static enum tca_status texts_append(struct setting_texts *texts, const char *text)
{
    char **items = realloc(texts->items, (texts->count + 1) * sizeof(*items));

    if (items == NULL)
        return TCA_ERR_NO_MEMORY;
    texts->items = items;
    items[texts->count] = strdup(text);
    if (items[texts->count] == NULL)
        return TCA_ERR_NO_MEMORY;
    texts->count++;
    return TCA_OK;
}

static enum tca_status set_text(char **field, const char *text)
{
    char *copy = NULL;

    if (text[0] != '\0') {
        copy = strdup(text);
        if (copy == NULL)
            return TCA_ERR_NO_MEMORY;
    }
    free(*field);
    *field = copy;
    return TCA_OK;
}

static enum tca_status parse_field(const struct setting *setting, void *field, const char *text)
{
    bool is_right = false;

    switch (setting->type) {
    case SETTING_BOOL:
        is_right = parse_bool(text, field);
        break;
    case SETTING_INT:
        is_right = parse_int(setting, text, field);
        break;
    case SETTING_REAL:
        is_right = parse_real(setting, text, field);
        break;
    case SETTING_CHOICE:
        is_right = parse_choice(setting, text, field);
        break;
    case SETTING_TEXT:
        return set_text(field, text);
    case SETTING_TEXTS:
        return texts_append(field, text);
    }
    return is_right ? TCA_OK : TCA_ERR_INVALID;
}

/* `where` is "--" or "FILE line N: ", what the reader of an error should see before the name. */
static enum tca_status set(const struct setting *setting, void *values, const char *text,
                           const char *where, struct tca_error *error)
{
    char allowed[ALLOWED_BYTES];
    enum tca_status status = parse_field(setting, field_of(setting, values), text);

    if (status == TCA_OK)
        return TCA_OK;
    if (status != TCA_ERR_INVALID)
        return tca_fail(error, status, "%s%s: out of memory", where, setting->name);
    setting_describe_allowed(setting, allowed, sizeof(allowed));
    return tca_fail(error, status, "%s%s: value \"%.80s\", allowed: %s", where, setting->name, text,
                    allowed);
}

static enum tca_status set_defaults(const struct settings_table *table, void *values,
                                    struct tca_error *error)
{
    static const size_t sizes[] = {
        [SETTING_BOOL] = sizeof(bool),   [SETTING_INT] = sizeof(int64_t),
        [SETTING_REAL] = sizeof(double), [SETTING_TEXT] = sizeof(char *),
        [SETTING_CHOICE] = sizeof(int),  [SETTING_TEXTS] = sizeof(struct setting_texts),
    };

    for (size_t i = 0; i < table->count; i++)
        memset(field_of(&table->rows[i], values), 0, sizes[table->rows[i].type]);
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].initial != NULL)
            TCA_TRY(set(&table->rows[i], values, table->rows[i].initial, "default of ", error));
    return TCA_OK;
}

static char *trim(char *text)
{
    size_t bytes;

    text += strspn(text, " \t");
    bytes = strlen(text);
    while (bytes > 0 && strchr(" \t\r\n", text[bytes - 1]) != NULL)
        bytes--;
    text[bytes] = '\0';
    return text;
}

/* `is_seen` marks the rows that earlier lines have set. */
static enum tca_status set_line(const struct settings_table *table, void *values, char *line,
                                const char *where, bool *is_seen, struct tca_error *error)
{
    const struct setting *setting;
    char *equals, *name;

    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return TCA_OK;
    equals = strchr(line, '=');
    if (equals == NULL)
        return tca_fail(error, TCA_ERR_INVALID, "%s\"%.80s\", allowed: name = value", where, line);
    *equals = '\0';
    name = trim(line);
    setting = find(table, name, strlen(name));
    if (setting == NULL || strcmp(name, table->config) == 0)
        return tca_fail(error, TCA_ERR_INVALID, "%sunknown setting \"%.80s\"", where, name);
    if (setting->type != SETTING_TEXTS && is_seen[setting - table->rows])
        return tca_fail(error, TCA_ERR_INVALID, "%s%s is set twice", where, name);
    is_seen[setting - table->rows] = true;
    return set(setting, values, trim(equals + 1), where, error);
}

static enum tca_status read_lines(const struct settings_table *table, void *values,
                                  const char *path, FILE *file, struct tca_error *error)
{
    bool *is_seen = calloc(table->count, sizeof(*is_seen));
    enum tca_status status = is_seen != NULL ? TCA_OK : TCA_ERR_NO_MEMORY;
    size_t capacity = 0;
    char *line = NULL;
    char where[256];
    ssize_t bytes;

    for (int number = 1; status == TCA_OK; number++) {
        bytes = getline(&line, &capacity, file);
        if (bytes < 0)
            break;
        snprintf(where, sizeof(where), "%.200s line %d: ", path, number);
        if (strlen(line) != (size_t)bytes)
            status = tca_fail(error, TCA_ERR_INVALID, "%sa NUL byte", where);
        else
            status = set_line(table, values, line, where, is_seen, error);
    }
    if (status == TCA_OK && ferror(file))
        status = tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
    free(line);
    free(is_seen);
    return status;
}

static enum tca_status read_file(const struct settings_table *table, void *values, const char *path,
                                 struct tca_error *error)
{
    enum tca_status status;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return tca_fail(error, errno == ENOENT ? TCA_ERR_NOT_FOUND : TCA_ERR_IO, "%s: %s", path,
                        strerror(errno));
    status = read_lines(table, values, path, file, error);
    fclose(file);
    return status;
}

/* argv[*at] starts with "--"; moves *at to the last argument it used. */
static enum tca_status set_option(const struct settings_table *table, void *values, int argc,
                                  char *const *argv, int *at, struct tca_error *error)
{
    const char *name = argv[*at] + 2;
    const char *equals = strchr(name, '=');
    size_t name_bytes = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct setting *setting = find(table, name, name_bytes);

    if (setting == NULL)
        return tca_fail(error, TCA_ERR_INVALID, "unknown option \"%.80s\"", argv[*at]);
    if (equals != NULL)
        return set(setting, values, equals + 1, "--", error);
    if (setting->type == SETTING_BOOL)
        return set(setting, values, "true", "--", error);
    if (*at + 1 >= argc)
        return tca_fail(error, TCA_ERR_INVALID, "--%s: a value is missing", setting->name);
    *at += 1;
    return set(setting, values, argv[*at], "--", error);
}

static bool is_help(const char *argument, enum settings_help *help_out)
{
    if (strcmp(argument, "--help") == 0)
        *help_out = SETTINGS_HELP_TEXT;
    else if (strcmp(argument, "--help=markdown") == 0)
        *help_out = SETTINGS_HELP_MARKDOWN;
    else
        return false;
    return true;
}

/* `arguments` has room for argc positional arguments. */
static enum tca_status read_argv(const struct settings_table *table, int argc, char *const *argv,
                                 void *values, struct settings_arguments *arguments,
                                 struct tca_error *error)
{
    bool has_options = true;

    arguments->positionals = 0;
    for (int i = 1; i < argc; i++) {
        if (has_options && strcmp(argv[i], "--") == 0) {
            has_options = false;
        } else if (has_options && is_help(argv[i], &arguments->help)) {
            return TCA_OK;
        } else if (has_options && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (argv[i][1] != '-')
                return tca_fail(error, TCA_ERR_INVALID, "unknown option \"%.80s\"", argv[i]);
            TCA_TRY(set_option(table, values, argc, argv, &i, error));
        } else if (table->synopsis == NULL) {
            return tca_fail(error, TCA_ERR_INVALID, "unexpected argument \"%.80s\"", argv[i]);
        } else {
            arguments->positional[arguments->positionals++] = argv[i];
            has_options = has_options && !table->stops_at_positional;
        }
    }
    return TCA_OK;
}

/* The command line is read twice when it names a config file: once to learn the file, and once
 * more on top of it. */
static enum tca_status load(const struct settings_table *table, int argc, char *const *argv,
                            void *values, struct settings_arguments *arguments,
                            struct tca_error *error)
{
    const struct setting *config;
    enum tca_status status;
    char *path;

    TCA_TRY(read_argv(table, argc, argv, values, arguments, error));
    config = table->config != NULL ? find(table, table->config, strlen(table->config)) : NULL;
    assert(config == NULL || config->type == SETTING_TEXT);
    if (arguments->help != SETTINGS_HELP_NONE || config == NULL ||
        *(char **)field_of(config, values) == NULL)
        return TCA_OK;
    path = strdup(*(char **)field_of(config, values));
    if (path == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
    settings_free(table, values, NULL);
    status = set_defaults(table, values, error);
    if (status == TCA_OK)
        status = read_file(table, values, path, error);
    if (status == TCA_OK)
        status = read_argv(table, argc, argv, values, arguments, error);
    free(path);
    return status;
}

enum tca_status settings_load(const struct settings_table *table, int argc, char *const *argv,
                              void *values, struct settings_arguments *arguments_out,
                              struct tca_error *error)
{
    enum tca_status status;

    *arguments_out = (struct settings_arguments){0};
    status = set_defaults(table, values, error);
    if (status != TCA_OK)
        goto err_free;
    arguments_out->positional = calloc((size_t)argc + 1, sizeof(*arguments_out->positional));
    status = arguments_out->positional != NULL
                 ? load(table, argc, argv, values, arguments_out, error)
                 : tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
    if (status == TCA_OK)
        return TCA_OK;
err_free:
    settings_free(table, values, arguments_out);
    return status;
}

void settings_free(const struct settings_table *table, void *values,
                   struct settings_arguments *arguments)
{
    for (size_t i = 0; i < table->count; i++) {
        field_free(&table->rows[i], values);
        if (table->rows[i].type == SETTING_TEXT)
            *(char **)field_of(&table->rows[i], values) = NULL;
    }
    if (arguments != NULL) {
        free(arguments->positional);
        *arguments = (struct settings_arguments){0};
    }
}

int settings_run(const struct settings_table *table, int argc, char *const *argv, void *values,
                 int (*run)(const void *values, const struct settings_arguments *arguments))
{
    struct settings_arguments arguments;
    struct tca_error error;
    int code = 0;

    if (settings_load(table, argc, argv, values, &arguments, &error) != TCA_OK) {
        fprintf(stderr, "%s: %s\n", table->program, error.text);
        return 2;
    }
    if (arguments.help != SETTINGS_HELP_NONE)
        settings_print_help(table, arguments.help, stdout);
    else
        code = run(values, &arguments);
    settings_free(table, values, &arguments);
    return code;
}
