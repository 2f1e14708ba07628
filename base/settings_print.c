/* What a settings table tells a reader: help, documentation, the values in force. */
#include "base/settings.h"

#include <inttypes.h>
#include <string.h>

/* A whole number as a user would write it: bytes with the largest suffix that loses nothing. */
static void format_int(const struct setting *setting, int64_t value, char *text_out, size_t bytes)
{
    static const char suffixes[] = "TGMK";

    for (int i = 0; setting->is_bytes && i < 4; i++) {
        int64_t unit = (int64_t)1 << (40 - 10 * i);

        if (value != 0 && value % unit == 0) {
            snprintf(text_out, bytes, "%" PRId64 "%c", value / unit, suffixes[i]);
            return;
        }
    }
    snprintf(text_out, bytes, "%" PRId64, value);
}

/* The shortest of the usual forms that reads back as the same number. */
static void format_real(double value, char *text_out, size_t bytes)
{
    double back;

    snprintf(text_out, bytes, "%.6g", value);
    if (sscanf(text_out, "%lf", &back) != 1 || back < value || back > value)
        snprintf(text_out, bytes, "%.17g", value);
}

static void describe_choices(const struct setting *setting, char *text_out, size_t bytes)
{
    size_t used = 0;

    text_out[0] = '\0';
    for (int i = 0; setting->choices[i] != NULL && used < bytes; i++) {
        const char *between = i == 0 ? "" : setting->choices[i + 1] != NULL ? ", " : " or ";

        used +=
            (size_t)snprintf(text_out + used, bytes - used, "%s%s", between, setting->choices[i]);
    }
}

void setting_describe_allowed(const struct setting *setting, char *text_out, size_t bytes)
{
    const char *suffix = setting->is_bytes ? ", with K, M, G or T for powers of 1024" : "";
    char low[32], high[32];

    switch (setting->type) {
    case SETTING_BOOL:
        snprintf(text_out, bytes, "true or false");
        break;
    case SETTING_INT:
        format_int(setting, setting->min, low, sizeof(low));
        format_int(setting, setting->max, high, sizeof(high));
        if (setting->min == 0 && setting->max == 0)
            snprintf(text_out, bytes, "a whole number%s", suffix);
        else
            snprintf(text_out, bytes, "%s to %s%s", low, high, suffix);
        break;
    case SETTING_REAL:
        format_real(setting->real_min, low, sizeof(low));
        format_real(setting->real_max, high, sizeof(high));
        if (setting->real_min == 0 && setting->real_max == 0)
            snprintf(text_out, bytes, "a number");
        else
            snprintf(text_out, bytes, "%s to %s", low, high);
        break;
    case SETTING_CHOICE:
        describe_choices(setting, text_out, bytes);
        break;
    case SETTING_TEXT:
        snprintf(text_out, bytes, "text");
        break;
    case SETTING_TEXTS:
        snprintf(text_out, bytes, "text, may be repeated");
        break;
    }
}

static void format_option(const struct setting *setting, char *text_out, size_t bytes)
{
    if (setting->type == SETTING_BOOL)
        snprintf(text_out, bytes, "--%s", setting->name);
    else
        snprintf(text_out, bytes, "--%s %s", setting->name,
                 setting->metavar != NULL ? setting->metavar : "VALUE");
}

static bool has_range(const struct setting *setting)
{
    return setting->type == SETTING_CHOICE ||
           (setting->type == SETTING_INT && (setting->min != 0 || setting->max != 0)) ||
           (setting->type == SETTING_REAL && (setting->real_min < 0 || setting->real_max > 0)) ||
           setting->type == SETTING_TEXTS;
}

static void print_help_text(const struct settings_table *table, FILE *out)
{
    char option[80], allowed[160];

    fprintf(out, "usage: %s [OPTION]..%s%s\n\n", table->program, table->synopsis != NULL ? " " : "",
            table->synopsis != NULL ? table->synopsis : "");
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *setting = &table->rows[i];

        format_option(setting, option, sizeof(option));
        fprintf(out, "  %-26s %s", option, setting->help);
        setting_describe_allowed(setting, allowed, sizeof(allowed));
        if (has_range(setting))
            fprintf(out, "; %s", allowed);
        if (setting->initial != NULL)
            fprintf(out, " (default %s)", setting->initial);
        fprintf(out, "\n");
    }
    fprintf(out, "  %-26s print this help, or as a Markdown table\n", "--help[=markdown]");
}

/* A bar inside a cell would end it. */
static void print_cell(const char *text, FILE *out)
{
    for (const char *c = text; *c != '\0'; c++)
        fprintf(out, *c == '|' ? "\\|" : "%c", *c);
}

static void print_markdown(const struct settings_table *table, FILE *out)
{
    char option[80], allowed[160];

    fprintf(out, "| option | default | allowed | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < table->count; i++) {
        const struct setting *setting = &table->rows[i];
        const char *initial = setting->initial;

        if (initial == NULL && setting->type == SETTING_BOOL)
            initial = "false";
        format_option(setting, option, sizeof(option));
        setting_describe_allowed(setting, allowed, sizeof(allowed));
        fprintf(out, "| `");
        print_cell(option, out);
        fprintf(out, initial != NULL ? "` | `" : "` | ");
        print_cell(initial != NULL ? initial : "", out);
        fprintf(out, initial != NULL ? "` | " : "| ");
        print_cell(allowed, out);
        fprintf(out, " | ");
        print_cell(setting->help, out);
        fprintf(out, " |\n");
    }
}

void settings_print_help(const struct settings_table *table, enum settings_help help, FILE *out)
{
    switch (help) {
    case SETTINGS_HELP_NONE:
        break;
    case SETTINGS_HELP_TEXT:
        print_help_text(table, out);
        break;
    case SETTINGS_HELP_MARKDOWN:
        print_markdown(table, out);
        break;
    }
}

static void print_text(const char *name, const char *text, FILE *out)
{
    fprintf(out, "%s =%s", name, text != NULL ? " " : "");
    for (const char *c = text != NULL ? text : ""; *c != '\0'; c++)
        fputc((unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c, out);
    fputc('\n', out);
}

static void print_row(const struct setting *setting, const void *field, FILE *out)
{
    const struct setting_texts *texts;
    char number[32];

    switch (setting->type) {
    case SETTING_BOOL:
        print_text(setting->name, *(const bool *)field ? "true" : "false", out);
        break;
    case SETTING_INT:
        format_int(setting, *(const int64_t *)field, number, sizeof(number));
        print_text(setting->name, number, out);
        break;
    case SETTING_REAL:
        format_real(*(const double *)field, number, sizeof(number));
        print_text(setting->name, number, out);
        break;
    case SETTING_CHOICE:
        print_text(setting->name, setting->choices[*(const int *)field], out);
        break;
    case SETTING_TEXT:
        print_text(setting->name, *(char *const *)field, out);
        break;
    case SETTING_TEXTS:
        texts = field;
        for (size_t i = 0; i < texts->count; i++)
            print_text(setting->name, texts->items[i], out);
        break;
    }
}

void settings_print(const struct settings_table *table, const void *values, FILE *out)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->config == NULL || strcmp(table->rows[i].name, table->config) != 0)
            print_row(&table->rows[i], (const char *)values + table->rows[i].offset, out);
}
