#include "model/tokenizer_json.h"

#include "base/json.h"
#include "model/byte_alphabet.h"
#include "model/nfc.h"
#include "model/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 128 << 20, TOKEN_BYTES_MAX = 1 << 16 };

/* GPT-2's pattern, which ByteLevel applies by itself when use_regex is set. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* The `type` of a part; *is_out whether it is `type`. */
static enum tca_status read_type(const struct json_node *node, const char **type_out,
                                 struct tca_error *error)
{
    const struct json_node type = json_node_get(node, "type");
    size_t bytes;

    return json_node_string(&type, type_out, &bytes, error);
}

static enum tca_status refuse_type(const struct json_node *node, const char *type,
                                   const char *supported, struct tca_error *error)
{
    const struct json_node key = json_node_get(node, "type");

    return json_node_fail(&key, error, TCA_ERR_UNSUPPORTED, "= \"%.64s\" is not supported, only %s",
                          type, supported);
}

/* A truth value that may be left out. */
static enum tca_status read_flag(const struct json_node *object, const char *key, bool otherwise,
                                 bool *flag_out, struct tca_error *error)
{
    const struct json_node node = json_node_get(object, key);

    *flag_out = otherwise;
    return json_node_exists(&node) ? json_node_bool(&node, flag_out, error) : TCA_OK;
}

/* A feature of `tokenizers` that none of the known models uses must be off. */
static enum tca_status refuse_flag(const struct json_node *object, const char *key,
                                   struct tca_error *error)
{
    const struct json_node node = json_node_get(object, key);
    bool flag;

    TCA_TRY(read_flag(object, key, false, &flag, error));
    return flag ? json_node_fail(&node, error, TCA_ERR_UNSUPPORTED, "= true is not supported")
                : TCA_OK;
}

static enum tca_status refuse_text(const struct json_node *object, const char *key,
                                   struct tca_error *error)
{
    const struct json_node node = json_node_get(object, key);
    const char *text = NULL;
    size_t bytes = 0;

    if (json_node_exists(&node))
        TCA_TRY(json_node_string(&node, &text, &bytes, error));
    return bytes > 0 ? json_node_fail(&node, error, TCA_ERR_UNSUPPORTED,
                                      "= \"%.64s\" is not supported, only null", text)
                     : TCA_OK;
}

static enum tca_status add_token(struct vocabulary *vocabulary, const char *text, size_t bytes,
                                 int32_t id, const struct json_node *node, struct tca_error *error)
{
    const enum tca_status status = vocabulary_add(vocabulary, text, bytes, id);

    if (status == TCA_ERR_EXISTS)
        return json_node_fail(node, error, TCA_ERR_INVALID, "= %d is the id of another token", id);
    if (status != TCA_OK)
        return json_node_fail(node, error, status, "cannot be kept: %s", tca_status_text(status));
    return TCA_OK;
}

static enum tca_status read_vocab(const struct json_node *vocab, struct tokenizer *tokenizer,
                                  struct tca_error *error)
{
    struct json_node token = {0};

    TCA_TRY(json_node_expect(vocab, JSON_TYPE_OBJECT, error));
    if (json_node_count(vocab) == 0)
        return json_node_fail(vocab, error, TCA_ERR_INVALID, "is empty");
    while (json_node_next(vocab, &token)) {
        int64_t id;

        TCA_TRY(json_node_int(&token, 0, VOCABULARY_IDS_MAX - 1, &id, error));
        if (token.key_bytes > TOKEN_BYTES_MAX)
            return json_node_fail(&token, error, TCA_ERR_INVALID, "is over %d bytes long",
                                  TOKEN_BYTES_MAX);
        TCA_TRY(add_token(&tokenizer->vocabulary, token.key, token.key_bytes, (int32_t)id, &token,
                          error));
    }
    return TCA_OK;
}

struct text {
    const char *data;
    size_t bytes;
};

/* A merge is "left right" or ["left", "right"]. */
static enum tca_status read_pair(const struct json_node *merge, struct text pair_out[2],
                                 struct tca_error *error)
{
    const char *text, *space;
    struct json_node part = {0};
    size_t bytes;

    if (json_node_type(merge) == JSON_TYPE_ARRAY) {
        if (json_node_count(merge) != 2)
            return json_node_fail(merge, error, TCA_ERR_INVALID, "has %zu elements, must have 2",
                                  json_node_count(merge));
        for (int i = 0; i < 2 && json_node_next(merge, &part); i++)
            TCA_TRY(json_node_string(&part, &pair_out[i].data, &pair_out[i].bytes, error));
        return TCA_OK;
    }
    TCA_TRY(json_node_string(merge, &text, &bytes, error));
    space = memchr(text, ' ', bytes);
    if (space == NULL || memchr(space + 1, ' ', bytes - (size_t)(space + 1 - text)) != NULL)
        return json_node_fail(merge, error, TCA_ERR_INVALID,
                              "= \"%.64s\" must be two tokens with one space between", text);
    pair_out[0] = (struct text){text, (size_t)(space - text)};
    pair_out[1] = (struct text){space + 1, bytes - pair_out[0].bytes - 1};
    return TCA_OK;
}

static enum tca_status find_merged(const struct vocabulary *vocabulary, const struct text pair[2],
                                   const struct json_node *node, int32_t ids_out[3],
                                   struct tca_error *error)
{
    char both[2 * TOKEN_BYTES_MAX];
    const struct text texts[3] = {pair[0], pair[1], {both, pair[0].bytes + pair[1].bytes}};

    if (pair[0].bytes > TOKEN_BYTES_MAX || pair[1].bytes > TOKEN_BYTES_MAX)
        return json_node_fail(node, error, TCA_ERR_INVALID, "names a token of over %d bytes",
                              TOKEN_BYTES_MAX);
    memcpy(both, pair[0].data, pair[0].bytes);
    memcpy(both + pair[0].bytes, pair[1].data, pair[1].bytes);
    for (int i = 0; i < 3; i++) {
        ids_out[i] = vocabulary_find(vocabulary, texts[i].data, texts[i].bytes);
        if (ids_out[i] < 0)
            return json_node_fail(node, error, TCA_ERR_INVALID,
                                  "needs the token \"%.*s\", which model.vocab does not have",
                                  (int)(texts[i].bytes < 64 ? texts[i].bytes : 64), texts[i].data);
    }
    return TCA_OK;
}

static enum tca_status read_merges(const struct json_node *merges, struct tokenizer *tokenizer,
                                   struct tca_error *error)
{
    struct json_node node = {0};

    TCA_TRY(json_node_expect(merges, JSON_TYPE_ARRAY, error));
    while (json_node_next(merges, &node)) {
        struct text pair[2];
        struct bpe_merge merge;
        int32_t ids[3];

        TCA_TRY(read_pair(&node, pair, error));
        TCA_TRY(find_merged(&tokenizer->vocabulary, pair, &node, ids, error));
        merge = (struct bpe_merge){ids[0], ids[1], (int32_t)node.index, ids[2]};
        if (bpe_add_merge(&tokenizer->bpe, &merge) != TCA_OK)
            return json_node_fail(merges, error, TCA_ERR_NO_MEMORY, "does not fit in memory");
    }
    return TCA_OK;
}

/* <0xC4>: the token of one byte of a character that is no token. */
static int32_t find_fallback(const struct vocabulary *vocabulary, uint8_t byte)
{
    char text[8];

    snprintf(text, sizeof(text), "<0x%02X>", byte);
    return vocabulary_find(vocabulary, text, strlen(text));
}

static struct bpe_byte find_byte(const struct vocabulary *vocabulary, uint8_t byte,
                                 bool has_fallback, int32_t unknown)
{
    char text[2];
    const size_t bytes = byte_alphabet_encode(byte, text);
    struct bpe_byte found = {.count = 1};

    found.ids[0] = vocabulary_find(vocabulary, text, bytes);
    if (found.ids[0] >= 0)
        return found;
    if (has_fallback) {
        for (size_t i = 0; i < bytes; i++)
            found.ids[i] = find_fallback(vocabulary, (uint8_t)text[i]);
        found.count = (int)bytes;
        if (found.ids[0] >= 0 && (bytes == 1 || found.ids[1] >= 0))
            return found;
    }
    if (unknown >= 0)
        return (struct bpe_byte){.ids = {unknown}, .count = 1, .is_unknown = true};
    return (struct bpe_byte){0}; /* `tokenizers` drops it as well */
}

/* What each byte starts as. */
static enum tca_status read_bytes(const struct json_node *model, struct tokenizer *tokenizer,
                                  struct tca_error *error)
{
    const struct json_node unk = json_node_get(model, "unk_token");
    int32_t unknown = -1;
    bool has_fallback;

    TCA_TRY(read_flag(model, "byte_fallback", false, &has_fallback, error));
    TCA_TRY(read_flag(model, "fuse_unk", false, &tokenizer->bpe.fuse_unknown, error));
    if (json_node_exists(&unk)) {
        const char *text;
        size_t bytes;

        TCA_TRY(json_node_string(&unk, &text, &bytes, error));
        unknown = vocabulary_find(&tokenizer->vocabulary, text, bytes);
        if (unknown < 0)
            return json_node_fail(&unk, error, TCA_ERR_INVALID,
                                  "= \"%.64s\" is no token of model.vocab", text);
    }
    for (int byte = 0; byte < 256; byte++) {
        struct bpe_byte *start = &tokenizer->bpe.bytes[byte];

        *start = find_byte(&tokenizer->vocabulary, (uint8_t)byte, has_fallback, unknown);
        if ((size_t)start->count > tokenizer->bpe.symbols_per_byte)
            tokenizer->bpe.symbols_per_byte = (size_t)start->count;
    }
    return TCA_OK;
}

static enum tca_status read_model(const struct json_node *model, struct tokenizer *tokenizer,
                                  struct tca_error *error)
{
    const struct json_node vocab = json_node_get(model, "vocab");
    const struct json_node merges = json_node_get(model, "merges");
    const struct json_node dropout = json_node_get(model, "dropout");
    const struct json_node type = json_node_get(model, "type");
    const char *name = "BPE";
    double rate = 0;

    TCA_TRY(json_node_expect(model, JSON_TYPE_OBJECT, error));
    if (json_node_exists(&type)) /* older files leave it out */
        TCA_TRY(read_type(model, &name, error));
    if (strcmp(name, "BPE") != 0)
        return refuse_type(model, name, "\"BPE\"", error);
    if (json_node_exists(&dropout))
        TCA_TRY(json_node_double(&dropout, &rate, error));
    if (rate != 0)
        return json_node_fail(&dropout, error, TCA_ERR_UNSUPPORTED, "= %g is not supported, only 0",
                              rate);
    TCA_TRY(refuse_text(model, "continuing_subword_prefix", error));
    TCA_TRY(refuse_text(model, "end_of_word_suffix", error));
    TCA_TRY(read_flag(model, "ignore_merges", false, &tokenizer->ignores_merges, error));
    TCA_TRY(read_vocab(&vocab, tokenizer, error));
    TCA_TRY(read_merges(&merges, tokenizer, error));
    return read_bytes(model, tokenizer, error);
}

static enum tca_status read_normalizer(const struct json_node *normalizer,
                                       struct tokenizer *tokenizer, struct tca_error *error)
{
    const char *type;

    if (!json_node_exists(normalizer))
        return TCA_OK;
    TCA_TRY(read_type(normalizer, &type, error));
    if (strcmp(type, "NFC") != 0)
        return refuse_type(normalizer, type, "\"NFC\" or no normalizer", error);
    tokenizer->has_nfc = true;
    return TCA_OK;
}

static enum tca_status add_stage(struct pre_tokenizer *pre_tokenizer, const char *pattern,
                                 size_t bytes, const struct json_node *node,
                                 struct tca_error *error)
{
    struct bytes translated = {0};
    struct tca_error reason = {0};
    size_t position = 0;
    enum tca_status status = pattern_translate(pattern, bytes, &translated, &position);

    if (status == TCA_ERR_UNSUPPORTED)
        status = json_node_fail(node, error, status,
                                "= \"%.160s\": what stands at byte %zu is not supported", pattern,
                                position);
    if (status == TCA_OK) {
        status = pre_tokenizer_add(pre_tokenizer, (const char *)translated.data, translated.size,
                                   &reason);
        if (status != TCA_OK)
            json_node_fail(node, error, status, "= \"%.160s\": %s", pattern, reason.text);
    }
    bytes_free(&translated);
    return status;
}

static enum tca_status read_split(const struct json_node *node, struct tokenizer *tokenizer,
                                  struct tca_error *error)
{
    const struct json_node pattern = json_node_get(node, "pattern");
    const struct json_node regex = json_node_get(&pattern, "Regex");
    const struct json_node behavior = json_node_get(node, "behavior");
    const char *text, *name;
    size_t bytes, name_bytes;

    TCA_TRY(json_node_string(&behavior, &name, &name_bytes, error));
    if (strcmp(name, "Isolated") != 0)
        return json_node_fail(&behavior, error, TCA_ERR_UNSUPPORTED,
                              "= \"%.64s\" is not supported, only \"Isolated\"", name);
    TCA_TRY(json_node_expect(&pattern, JSON_TYPE_OBJECT, error));
    if (!json_node_exists(&regex))
        return json_node_fail(&pattern, error, TCA_ERR_UNSUPPORTED,
                              "is not supported without \"Regex\"");
    TCA_TRY(json_node_string(&regex, &text, &bytes, error));
    return add_stage(&tokenizer->pre_tokenizer, text, bytes, &regex, error);
}

static enum tca_status read_digits(const struct json_node *node, struct tokenizer *tokenizer,
                                   struct tca_error *error)
{
    bool is_individual;

    TCA_TRY(read_flag(node, "individual_digits", false, &is_individual, error));
    return is_individual ? add_stage(&tokenizer->pre_tokenizer, "\\p{N}", 5, node, error)
                         : add_stage(&tokenizer->pre_tokenizer, "\\p{N}+", 6, node, error);
}

static enum tca_status read_byte_level(const struct json_node *node, struct tokenizer *tokenizer,
                                       struct tca_error *error)
{
    bool has_regex;

    TCA_TRY(refuse_flag(node, "add_prefix_space", error));
    TCA_TRY(read_flag(node, "use_regex", true, &has_regex, error));
    return has_regex ? add_stage(&tokenizer->pre_tokenizer, gpt2_pattern, sizeof(gpt2_pattern) - 1,
                                 node, error)
                     : TCA_OK;
}

/* One part; *is_byte_level_out is set where the part is ByteLevel, which maps bytes to the
 * vocabulary's alphabet: nothing can follow it, and without it the vocabulary is another kind. */
static enum tca_status read_part(const struct json_node *node, struct tokenizer *tokenizer,
                                 bool *is_byte_level_out, struct tca_error *error)
{
    const char *type;

    TCA_TRY(read_type(node, &type, error));
    if (*is_byte_level_out)
        return json_node_fail(node, error, TCA_ERR_UNSUPPORTED, "after ByteLevel is not supported");
    if (strcmp(type, "Split") == 0)
        return read_split(node, tokenizer, error);
    if (strcmp(type, "Digits") == 0)
        return read_digits(node, tokenizer, error);
    if (strcmp(type, "ByteLevel") != 0)
        return refuse_type(node, type, "\"Split\", \"Digits\" and \"ByteLevel\"", error);
    *is_byte_level_out = true;
    return read_byte_level(node, tokenizer, error);
}

static enum tca_status read_pre_tokenizer(const struct json_node *node, struct tokenizer *tokenizer,
                                          struct tca_error *error)
{
    const struct json_node parts = json_node_get(node, "pretokenizers");
    struct json_node part = {0};
    bool is_byte_level = false;
    const char *type;

    TCA_TRY(read_type(node, &type, error));
    if (strcmp(type, "Sequence") == 0) {
        TCA_TRY(json_node_expect(&parts, JSON_TYPE_ARRAY, error));
        while (json_node_next(&parts, &part))
            TCA_TRY(read_part(&part, tokenizer, &is_byte_level, error));
    } else {
        TCA_TRY(read_part(node, tokenizer, &is_byte_level, error));
    }
    return is_byte_level ? TCA_OK
                         : json_node_fail(node, error, TCA_ERR_UNSUPPORTED,
                                          "without ByteLevel is not supported");
}

static enum tca_status read_decoder(const struct json_node *decoder, struct tca_error *error)
{
    const char *type;

    TCA_TRY(read_type(decoder, &type, error));
    return strcmp(type, "ByteLevel") == 0 ? TCA_OK
                                          : refuse_type(decoder, type, "\"ByteLevel\"", error);
}

/* Enter the token into the vocabulary, or find it there under the same id. */
static enum tca_status enter_added_token(struct tokenizer *tokenizer, const struct json_node *node,
                                         const char *text, size_t bytes, int32_t *id_out,
                                         struct tca_error *error)
{
    const struct json_node id_node = json_node_get(node, "id");
    const int32_t known = vocabulary_find(&tokenizer->vocabulary, text, bytes);
    int64_t id;

    TCA_TRY(json_node_int(&id_node, 0, VOCABULARY_IDS_MAX - 1, &id, error));
    if (bytes > TOKEN_BYTES_MAX)
        return json_node_fail(node, error, TCA_ERR_INVALID, "is over %d bytes long",
                              TOKEN_BYTES_MAX);
    if (known >= 0 && known != id)
        return json_node_fail(&id_node, error, TCA_ERR_INVALID,
                              "= %lld, but the same text has id %d elsewhere", (long long)id,
                              known);
    if (known < 0)
        TCA_TRY(add_token(&tokenizer->vocabulary, text, bytes, (int32_t)id, &id_node, error));
    *id_out = (int32_t)id;
    return TCA_OK;
}

static enum tca_status keep_added_token(struct tokenizer *tokenizer, struct added_token *token,
                                        bool is_normalized)
{
    struct bytes text = {0};
    enum tca_status status;

    if (!is_normalized)
        return added_tokens_add(&tokenizer->raw, token);
    status = tokenizer->has_nfc ? nfc_append(token->text, token->bytes, &text)
                                : bytes_append(&text, token->text, token->bytes);
    token->text = (char *)text.data;
    token->bytes = text.size;
    if (status == TCA_OK)
        status = added_tokens_add(&tokenizer->normalized, token);
    bytes_free(&text);
    return status;
}

static enum tca_status read_added_token(const struct json_node *node, struct tokenizer *tokenizer,
                                        struct tca_error *error)
{
    const struct json_node content = json_node_get(node, "content");
    struct added_token token = {0};
    bool is_normalized;
    const char *text;
    struct bytes copy = {0};
    enum tca_status status;

    TCA_TRY(json_node_string(&content, &text, &token.bytes, error));
    TCA_TRY(read_flag(node, "special", false, &token.is_special, error));
    TCA_TRY(read_flag(node, "single_word", false, &token.is_single_word, error));
    TCA_TRY(read_flag(node, "lstrip", false, &token.strips_left, error));
    TCA_TRY(read_flag(node, "rstrip", false, &token.strips_right, error));
    TCA_TRY(read_flag(node, "normalized", !token.is_special, &is_normalized, error));
    if (token.bytes == 0) /* `tokenizers` passes it over */
        return TCA_OK;
    TCA_TRY(enter_added_token(tokenizer, node, text, token.bytes, &token.id, error));
    status = bytes_append(&copy, text, token.bytes);
    token.text = (char *)copy.data;
    if (status == TCA_OK)
        status = keep_added_token(tokenizer, &token, is_normalized);
    bytes_free(&copy);
    return status == TCA_OK
               ? TCA_OK
               : json_node_fail(node, error, status, "cannot be kept: %s", tca_status_text(status));
}

static enum tca_status read_added_tokens(const struct json_node *list, struct tokenizer *tokenizer,
                                         struct tca_error *error)
{
    struct json_node node = {0};

    if (json_node_exists(list))
        TCA_TRY(json_node_expect(list, JSON_TYPE_ARRAY, error));
    while (json_node_next(list, &node))
        TCA_TRY(read_added_token(&node, tokenizer, error));
    added_tokens_sort(&tokenizer->raw);
    added_tokens_sort(&tokenizer->normalized);
    return TCA_OK;
}

static void mark_special(const struct added_tokens *added, uint8_t *flags)
{
    for (size_t i = 0; i < added->count; i++)
        if (added->tokens[i].is_special)
            flags[added->tokens[i].id] |= TOKEN_IS_SPECIAL;
}

/* model.vocab was entered before the added tokens, so the texts of the latter lie behind. */
static enum tca_status mark_tokens(struct tokenizer *tokenizer, size_t model_text_bytes)
{
    const struct vocabulary *vocabulary = &tokenizer->vocabulary;

    tokenizer->flags = calloc((size_t)vocabulary->ids, 1);
    if (tokenizer->flags == NULL)
        return TCA_ERR_NO_MEMORY;
    for (int32_t id = 0; id < vocabulary->ids; id++)
        if (vocabulary->entries[id].at >= model_text_bytes)
            tokenizer->flags[id] |= TOKEN_IS_LITERAL;
    mark_special(&tokenizer->raw, tokenizer->flags);
    mark_special(&tokenizer->normalized, tokenizer->flags);
    return TCA_OK;
}

static enum tca_status read_top(const struct json_node *root, struct tokenizer *tokenizer,
                                struct tca_error *error)
{
    const struct json_node model = json_node_get(root, "model");
    const struct json_node normalizer = json_node_get(root, "normalizer");
    const struct json_node pre_tokenizer = json_node_get(root, "pre_tokenizer");
    const struct json_node decoder = json_node_get(root, "decoder");
    const struct json_node added = json_node_get(root, "added_tokens");
    size_t model_text_bytes;

    TCA_TRY(json_node_expect(root, JSON_TYPE_OBJECT, error));
    TCA_TRY(read_model(&model, tokenizer, error));
    TCA_TRY(read_normalizer(&normalizer, tokenizer, error));
    TCA_TRY(read_pre_tokenizer(&pre_tokenizer, tokenizer, error));
    TCA_TRY(read_decoder(&decoder, error));
    model_text_bytes = tokenizer->vocabulary.texts.size;
    TCA_TRY(read_added_tokens(&added, tokenizer, error));
    if (mark_tokens(tokenizer, model_text_bytes) != TCA_OK)
        return json_node_fail(root, error, TCA_ERR_NO_MEMORY, "does not fit in memory");
    return TCA_OK;
}

enum tca_status tokenizer_json_read(const char *path, struct tokenizer *tokenizer,
                                    struct tca_error *error)
{
    struct json_document *document;
    struct json_node root;
    enum tca_status status;

    TCA_TRY(json_document_open(path, FILE_BYTES_MAX, &document, error));
    root = json_document_root(document);
    status = read_top(&root, tokenizer, error);
    json_document_close(document);
    return status;
}
