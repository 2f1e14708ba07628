#include "model/pattern.h"

#include <stdbool.h>
#include <string.h>

struct reader {
    const char *text;
    size_t bytes;
    size_t at;
    bool is_in_class; /* between [ and ] */
    struct bytes *out;
};

/* The characters of White_Space, for use inside a class. */
static const char white_space[] = "\\t-\\r\\x{85}\\p{Z}";

static bool starts_with(const struct reader *reader, const char *text)
{
    const size_t bytes = strlen(text);

    return reader->bytes - reader->at >= bytes &&
           memcmp(reader->text + reader->at, text, bytes) == 0;
}

static enum tca_status copy(struct reader *reader, size_t bytes)
{
    TCA_TRY(bytes_append(reader->out, reader->text + reader->at, bytes));
    reader->at += bytes;
    return TCA_OK;
}

static enum tca_status replace(struct reader *reader, size_t bytes, const char *prefix,
                               const char *text, const char *suffix)
{
    TCA_TRY(bytes_append_text(reader->out, prefix));
    TCA_TRY(bytes_append_text(reader->out, text));
    TCA_TRY(bytes_append_text(reader->out, suffix));
    reader->at += bytes;
    return TCA_OK;
}

/* \p{Lu} and the like: letters only, so that the braces hold a plain property name. */
static enum tca_status translate_property(struct reader *reader)
{
    size_t end = reader->at + 3;

    while (end < reader->bytes && ((reader->text[end] >= 'A' && reader->text[end] <= 'Z') ||
                                   (reader->text[end] >= 'a' && reader->text[end] <= 'z')))
        end++;
    if (reader->at + 2 >= reader->bytes || reader->text[reader->at + 2] != '{' ||
        end == reader->bytes || reader->text[end] != '}')
        return TCA_ERR_UNSUPPORTED;
    return copy(reader, end + 1 - reader->at);
}

static enum tca_status translate_escape(struct reader *reader)
{
    const char escaped = reader->at + 1 < reader->bytes ? reader->text[reader->at + 1] : '\0';

    switch (escaped) {
    case 's':
        return reader->is_in_class ? replace(reader, 2, "", white_space, "")
                                   : replace(reader, 2, "[", white_space, "]");
    case 'S': /* a negation cannot be spelt out inside a class */
        return reader->is_in_class ? TCA_ERR_UNSUPPORTED
                                   : replace(reader, 2, "[^", white_space, "]");
    case 'p':
    case 'P':
        return translate_property(reader);
    case 'd':
    case 'n':
    case 'r':
    case 't':
    case 'f':
        return copy(reader, 2);
    default: /* escaped punctuation is itself */
        return escaped != '\0' && strchr("\\^$.[]|()?*+{}/-'\"!#%&,:;<=>@_`~ ", escaped) != NULL
                   ? copy(reader, 2)
                   : TCA_ERR_UNSUPPORTED;
    }
}

static enum tca_status translate_in_class(struct reader *reader)
{
    /* Oniguruma nests classes and intersects them with &&. */
    if (starts_with(reader, "[") || starts_with(reader, "&&"))
        return TCA_ERR_UNSUPPORTED;
    if (starts_with(reader, "]"))
        reader->is_in_class = false;
    return copy(reader, 1);
}

static enum tca_status translate_outside(struct reader *reader)
{
    static const char *const groups[] = {"(?:", "(?i:", "(?=", "(?!", "(?>"};
    /* {n,m}+ is possessive in PCRE2 only; . ^ $ differ at line ends. */
    static const char *const differing[] = {"}+", ".", "^", "$"};

    for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++)
        if (starts_with(reader, groups[i]))
            return copy(reader, strlen(groups[i]));
    if (starts_with(reader, "(?") || starts_with(reader, "(*"))
        return TCA_ERR_UNSUPPORTED;
    for (size_t i = 0; i < sizeof(differing) / sizeof(*differing); i++)
        if (starts_with(reader, differing[i]))
            return TCA_ERR_UNSUPPORTED;
    if (starts_with(reader, "[")) {
        reader->is_in_class = true;
        TCA_TRY(copy(reader, 1));
        if (starts_with(reader, "^"))
            TCA_TRY(copy(reader, 1));
        return starts_with(reader, "]") ? TCA_ERR_UNSUPPORTED : TCA_OK;
    }
    return copy(reader, 1);
}

enum tca_status pattern_translate(const char *pattern, size_t bytes, struct bytes *translated_out,
                                  size_t *position_out)
{
    struct reader reader = {.text = pattern, .bytes = bytes, .out = translated_out};

    while (reader.at < bytes) {
        enum tca_status status;

        *position_out = reader.at;
        if (pattern[reader.at] == '\\')
            status = translate_escape(&reader);
        else if (reader.is_in_class)
            status = translate_in_class(&reader);
        else
            status = translate_outside(&reader);
        if (status != TCA_OK)
            return status;
    }
    return TCA_OK;
}
