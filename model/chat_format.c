#include "model/chat_format.h"

#include "base/json.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 16 << 20 };

static const char im_start[] = "<|im_start|>", im_end[] = "<|im_end|>";
static const char header_start[] = "<|start_header_id|>", header_end[] = "<|end_header_id|>";
static const char eot[] = "<|eot_id|>", begin_of_text[] = "<|begin_of_text|>";

/* A run of tokens under way. Text gathers until a control token or the end cuts it, so that it is
 * encoded as one piece. */
struct prompt {
    enum chat_format format;
    const struct tokenizer *tokenizer;
    struct token_ids *ids; /* borrowed */
    struct bytes text;     /* not encoded yet */
};

static bool has_special(const struct tokenizer *tokenizer, const char *text)
{
    return tokenizer_is_special(tokenizer, tokenizer_find(tokenizer, text));
}

/* The template, or in a list of named ones that called "default". */
static enum tca_status find_template(const struct json_node *templates, const char **text_out,
                                     size_t *bytes_out)
{
    struct json_node node = {0};

    while (json_node_next(templates, &node)) {
        const struct json_node name = json_node_get(&node, "name");
        const struct json_node text = json_node_get(&node, "template");
        const char *name_text;
        size_t name_bytes;

        if (json_node_string(&name, &name_text, &name_bytes, NULL) == TCA_OK &&
            strcmp(name_text, "default") == 0)
            return json_node_string(&text, text_out, bytes_out, NULL);
    }
    return json_node_string(templates, text_out, bytes_out, NULL);
}

static bool has_llama3_template(const char *folder)
{
    char path[PATH_MAX];
    struct json_document *document;
    struct json_node root, templates;
    const char *text;
    size_t bytes;
    bool is_llama3 = false;

    if (snprintf(path, sizeof(path), "%s/tokenizer_config.json", folder) >= (int)sizeof(path) ||
        json_document_open(path, CONFIG_BYTES_MAX, &document, NULL) != TCA_OK)
        return false;
    root = json_document_root(document);
    templates = json_node_get(&root, "chat_template");
    if (find_template(&templates, &text, &bytes) == TCA_OK)
        is_llama3 = memmem(text, bytes, header_start, sizeof(header_start) - 1) != NULL &&
                    memmem(text, bytes, im_start, sizeof(im_start) - 1) == NULL;
    json_document_close(document);
    return is_llama3;
}

enum chat_format chat_format_detect(const char *folder, const struct tokenizer *tokenizer)
{
    const bool has_chatml = has_special(tokenizer, im_start) && has_special(tokenizer, im_end);
    const bool has_llama3 = has_special(tokenizer, header_start) &&
                            has_special(tokenizer, header_end) && has_special(tokenizer, eot);

    if (has_chatml && has_llama3)
        return has_llama3_template(folder) ? CHAT_FORMAT_LLAMA3 : CHAT_FORMAT_CHATML;
    if (has_chatml)
        return CHAT_FORMAT_CHATML;
    return has_llama3 ? CHAT_FORMAT_LLAMA3 : CHAT_FORMAT_NONE;
}

const char *chat_format_name(enum chat_format format)
{
    switch (format) {
    case CHAT_FORMAT_NONE:
        break;
    case CHAT_FORMAT_CHATML:
        return "chatml";
    case CHAT_FORMAT_LLAMA3:
        return "llama3";
    }
    return "none";
}

int32_t chat_format_end_token(enum chat_format format, const struct tokenizer *tokenizer)
{
    switch (format) {
    case CHAT_FORMAT_NONE:
        break;
    case CHAT_FORMAT_CHATML:
        return tokenizer_find(tokenizer, im_end);
    case CHAT_FORMAT_LLAMA3:
        return tokenizer_find(tokenizer, eot);
    }
    return -1;
}

static enum tca_status add_text(struct prompt *prompt, const char *text)
{
    return bytes_append_text(&prompt->text, text);
}

static enum tca_status encode_text(struct prompt *prompt)
{
    TCA_TRY(tokenizer_encode(prompt->tokenizer, (const char *)prompt->text.data, prompt->text.size,
                             false, prompt->ids));
    bytes_clear(&prompt->text);
    return TCA_OK;
}

/* A control token the tokenizer does not have is left out. */
static enum tca_status add_control(struct prompt *prompt, const char *token)
{
    const int32_t id = tokenizer_find(prompt->tokenizer, token);

    TCA_TRY(encode_text(prompt));
    return id < 0 ? TCA_OK : token_ids_append(prompt->ids, &id, 1);
}

static enum tca_status add_header(struct prompt *prompt, const char *role)
{
    switch (prompt->format) {
    case CHAT_FORMAT_NONE:
        break;
    case CHAT_FORMAT_CHATML:
        TCA_TRY(add_control(prompt, im_start));
        TCA_TRY(add_text(prompt, role));
        return add_text(prompt, "\n");
    case CHAT_FORMAT_LLAMA3:
        TCA_TRY(add_control(prompt, header_start));
        TCA_TRY(add_text(prompt, role));
        TCA_TRY(add_control(prompt, header_end));
        return add_text(prompt, "\n\n");
    }
    return TCA_OK;
}

static enum tca_status add_end(struct prompt *prompt)
{
    switch (prompt->format) {
    case CHAT_FORMAT_NONE:
        break;
    case CHAT_FORMAT_CHATML:
        TCA_TRY(add_control(prompt, im_end));
        return add_text(prompt, "\n");
    case CHAT_FORMAT_LLAMA3:
        return add_control(prompt, eot);
    }
    return TCA_OK;
}

static enum tca_status add_chat_text(struct prompt *prompt, struct chat_text text)
{
    return bytes_append(&prompt->text, text.data, text.bytes);
}

static enum tca_status build_prefix(struct prompt *prompt, struct chat_text system)
{
    if (prompt->format == CHAT_FORMAT_NONE)
        return add_chat_text(prompt, system);
    if (prompt->format == CHAT_FORMAT_LLAMA3)
        TCA_TRY(add_control(prompt, begin_of_text));
    if (system.bytes > 0) {
        TCA_TRY(add_header(prompt, "system"));
        TCA_TRY(add_chat_text(prompt, system));
        TCA_TRY(add_end(prompt));
    }
    return add_header(prompt, "user");
}

/* A turn of a chat; the first user text stands in the turn that the prefix began. */
static enum tca_status add_turn(struct prompt *prompt, const struct chat_turn *turn, bool is_first,
                                bool has_document)
{
    if (turn->is_assistant) {
        if (is_first)
            TCA_TRY(add_end(prompt));
        TCA_TRY(add_header(prompt, "assistant"));
    } else if (!is_first) {
        TCA_TRY(add_header(prompt, "user"));
    } else if (has_document) {
        TCA_TRY(add_text(prompt, "\n\nQuestion: "));
    }
    TCA_TRY(add_chat_text(prompt, turn->text));
    return add_end(prompt);
}

/* The same without control tokens: labels or lines keep the turns apart. */
static enum tca_status add_plain_turn(struct prompt *prompt, const struct chat_turn *turn,
                                      bool is_first, bool has_document)
{
    if (has_document)
        TCA_TRY(add_text(prompt, turn->is_assistant ? "\nAnswer: " : "\n\nQuestion: "));
    else if (!is_first)
        TCA_TRY(add_text(prompt, "\n"));
    return add_chat_text(prompt, turn->text);
}

static enum tca_status build_question(struct prompt *prompt, bool has_document,
                                      const struct chat_turn *history, size_t turns,
                                      struct chat_text question)
{
    const struct chat_turn last = {.text = question};

    for (size_t i = 0; i <= turns; i++) {
        const struct chat_turn *turn = i < turns ? &history[i] : &last;

        if (prompt->format == CHAT_FORMAT_NONE)
            TCA_TRY(add_plain_turn(prompt, turn, i == 0, has_document));
        else
            TCA_TRY(add_turn(prompt, turn, i == 0, has_document));
    }
    if (prompt->format == CHAT_FORMAT_NONE)
        return has_document ? add_text(prompt, "\nAnswer:") : TCA_OK;
    return add_header(prompt, "assistant");
}

/* Encode the last text, or take everything back after a failure. */
static enum tca_status finish(struct prompt *prompt, enum tca_status status, size_t first_id)
{
    if (status == TCA_OK)
        status = encode_text(prompt);
    if (status != TCA_OK)
        prompt->ids->count = first_id;
    bytes_free(&prompt->text);
    return status;
}

enum tca_status chat_format_prefix(enum chat_format format, const struct tokenizer *tokenizer,
                                   struct chat_text system, struct token_ids *ids_out)
{
    struct prompt prompt = {format, tokenizer, ids_out, {0}};
    const size_t first_id = ids_out->count;

    return finish(&prompt, build_prefix(&prompt, system), first_id);
}

enum tca_status chat_format_question(enum chat_format format, const struct tokenizer *tokenizer,
                                     bool has_document, const struct chat_turn *history,
                                     size_t turns, struct chat_text question,
                                     struct token_ids *ids_out)
{
    struct prompt prompt = {format, tokenizer, ids_out, {0}};
    const size_t first_id = ids_out->count;

    return finish(&prompt, build_question(&prompt, has_document, history, turns, question),
                  first_id);
}
