#include "model/added_tokens.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum tca_status added_tokens_add(struct added_tokens *added, const struct added_token *token)
{
    struct added_token copy = *token;

    if (added->count == added->capacity) {
        const size_t capacity = added->capacity == 0 ? 16 : added->capacity * 2;
        struct added_token *grown = realloc(added->tokens, capacity * sizeof(*grown));

        if (grown == NULL)
            return TCA_ERR_NO_MEMORY;
        added->tokens = grown;
        added->capacity = capacity;
    }
    copy.text = malloc(token->bytes);
    if (copy.text == NULL)
        return TCA_ERR_NO_MEMORY;
    memcpy(copy.text, token->text, token->bytes);
    added->tokens[added->count++] = copy;
    added->has_plain = added->has_plain || !token->is_special;
    added->is_first_byte[(unsigned char)token->text[0]] = true;
    return TCA_OK;
}

static int compare_texts(const void *left, const void *right)
{
    const struct added_token *a = left, *b = right;
    const int order = memcmp(a->text, b->text, a->bytes < b->bytes ? a->bytes : b->bytes);

    return order != 0 ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

void added_tokens_sort(struct added_tokens *added)
{
    if (added->count > 0)
        qsort(added->tokens, added->count, sizeof(*added->tokens), compare_texts);
}

void added_tokens_free(struct added_tokens *added)
{
    for (size_t i = 0; i < added->count; i++)
        free(added->tokens[i].text);
    free(added->tokens);
    *added = (struct added_tokens){0};
}

/* The first of tokens[first, end), which agree in `depth` bytes, whose next byte is >= `byte`. */
static size_t lower_bound(const struct added_tokens *added, size_t first, size_t end, size_t depth,
                          int byte)
{
    while (first < end) {
        const size_t middle = first + (end - first) / 2;
        const struct added_token *token = &added->tokens[middle];

        if (token->bytes == depth || (unsigned char)token->text[depth] < byte)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

/* The longest token at the start of `text`, NULL when there is none. Narrows the sorted table
 * byte by byte, so that its size hardly matters. */
static const struct added_token *longest_at(const struct added_tokens *added, const char *text,
                                            size_t bytes)
{
    const struct added_token *longest = NULL;
    size_t first = 0, end = added->count;

    for (size_t depth = 0; depth < bytes; depth++) {
        const int byte = (unsigned char)text[depth];

        first = lower_bound(added, first, end, depth, byte);
        end = lower_bound(added, first, end, depth, byte + 1);
        if (first == end)
            break;
        if (added->tokens[first].bytes == depth + 1)
            longest = &added->tokens[first];
    }
    return longest;
}

/* Unicode's White_Space. */
static bool is_space(int32_t character)
{
    switch (character) {
    case 0x20:
    case 0x85:
    case 0xa0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202f:
    case 0x205f:
    case 0x3000:
        return true;
    default:
        return (character >= 0x09 && character <= 0x0d) ||
               (character >= 0x2000 && character <= 0x200a);
    }
}

/* A word character of regular expressions (UTS 18): alphabetic, mark, decimal digit, connector. */
static bool is_word(int32_t character)
{
    const utf8proc_category_t category = utf8proc_category(character);

    if (character == 0x200c || character == 0x200d)
        return true;
    /* Other_Alphabetic beyond marks: circled and squared letters. */
    if ((character >= 0x24b6 && character <= 0x24e9) ||
        (character >= 0x1f130 && character <= 0x1f149) ||
        (character >= 0x1f150 && character <= 0x1f169) ||
        (character >= 0x1f170 && character <= 0x1f189))
        return true;
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC;
}

/* The character before text[at], which is > 0; *start_out is where it begins. */
static int32_t character_before(const char *text, size_t at, size_t *start_out)
{
    utf8proc_int32_t character;
    size_t start = at - 1;

    while (start > 0 && ((unsigned char)text[start] & 0xc0) == 0x80)
        start--;
    utf8proc_iterate((const utf8proc_uint8_t *)text + start, (utf8proc_ssize_t)(at - start),
                     &character);
    *start_out = start;
    return character;
}

/* The character at text[at], which is < bytes; *end_out is where it ends. */
static int32_t character_after(const char *text, size_t bytes, size_t at, size_t *end_out)
{
    utf8proc_int32_t character;

    *end_out = at + (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                             (utf8proc_ssize_t)(bytes - at), &character);
    return character;
}

static bool stands_alone(const char *text, size_t bytes, const struct added_match *match)
{
    size_t edge;

    return (match->start == 0 || !is_word(character_before(text, match->start, &edge))) &&
           (match->end == bytes || !is_word(character_after(text, bytes, match->end, &edge)));
}

static void strip(const char *text, size_t bytes, size_t done, struct added_match *match)
{
    size_t edge;

    while (match->token->strips_left && match->start > done &&
           is_space(character_before(text, match->start, &edge)))
        match->start = edge;
    while (match->token->strips_right && match->end < bytes &&
           is_space(character_after(text, bytes, match->end, &edge)))
        match->end = edge;
}

bool added_tokens_next(const struct added_tokens *added, const char *text, size_t bytes,
                       bool parse_special, size_t done, size_t *at, struct added_match *match_out)
{
    if (added->count == 0 || (!parse_special && !added->has_plain))
        return false;
    for (size_t start = *at; start < bytes; start++) {
        const struct added_token *token;
        struct added_match match;

        if (!added->is_first_byte[(unsigned char)text[start]])
            continue;
        token = longest_at(added, text + start, bytes - start);
        if (token == NULL)
            continue;
        match = (struct added_match){.token = token, .start = start, .end = start + token->bytes};
        *at = match.end;
        start = match.end - 1; /* also a token that is passed over hides what it overlaps */
        if ((token->is_special && !parse_special) ||
            (token->is_single_word && !stands_alone(text, bytes, &match)))
            continue;
        strip(text, bytes, done, &match);
        *match_out = match;
        return true;
    }
    return false;
}
