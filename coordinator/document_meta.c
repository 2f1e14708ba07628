#include "coordinator/document_meta.h"

#include "base/json.h"
#include "base/json_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { META_VERSION = 1 };

static const char *const encodings[] = {"TEXT_UTF8", "TOKEN_IDS_U32LE"};

/* A member whose value is a text. */
struct text_member {
    const char *key;
    const void *text;
    size_t bytes;
};

static enum tca_status write_text(struct bytes *json, const struct text_member *member)
{
    TCA_TRY(bytes_append_text(json, ",\""));
    TCA_TRY(bytes_append_text(json, member->key));
    TCA_TRY(bytes_append_text(json, "\":"));
    return json_write_string(json, member->text, member->bytes);
}

static enum tca_status write_numbers(const struct document *document, struct bytes *json)
{
    const struct document_identity *identity = &document->identity;
    char numbers[512];

    snprintf(numbers, sizeof(numbers),
             ",\"raw\":%s,\"keep\":%.17g,\"pinned\":%s,\"is_stored\":%s,\"byte_count\":%" PRId64
             ",\"expected_bytes\":%" PRId64 ",\"token_count\":%" PRId64
             ",\"create_time_ms\":%" PRId64 ",\"last_used_ms\":%" PRId64 ",\"failure\":%d",
             identity->is_raw ? "true" : "false", identity->keep,
             document->is_pinned ? "true" : "false",
             document->state == DOCUMENT_STORED ? "true" : "false", document->byte_count,
             document->expected_bytes, document->token_count, document->create_time_ms,
             document->last_used_ms, document->state == DOCUMENT_FAILED ? document->failure : 0);
    return bytes_append_text(json, numbers);
}

enum tca_status document_meta_write(const struct document *document, struct bytes *json_out)
{
    const struct document_identity *identity = &document->identity;
    const char *encoding = encodings[identity->encoding];
    const struct text_member members[] = {
        {"document_id", document->id, strlen(document->id)},
        {"display_name", document->display_name.data, document->display_name.size},
        {"encoding", encoding, strlen(encoding)},
        {"system", identity->system.data, identity->system.size},
        {"rule", identity->rule, strlen(identity->rule)},
        {"sha256", document->sha256, strlen(document->sha256)},
        {"expected_sha256", document->expected_sha256, strlen(document->expected_sha256)},
        {"failure_text", document->failure_text, strlen(document->failure_text)},
    };

    TCA_TRY(bytes_append_text(json_out, "{\"version\":1"));
    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
        TCA_TRY(write_text(json_out, &members[i]));
    TCA_TRY(write_numbers(document, json_out));
    return bytes_append_text(json_out, "}\n");
}

/* A text without NUL of less than `bytes` bytes. */
static enum tca_status read_short(const struct json_node *root, const char *key, char *text_out,
                                  size_t bytes, struct tca_error *error)
{
    const struct json_node node = json_node_get(root, key);
    const char *text;
    size_t length;

    TCA_TRY(json_node_string(&node, &text, &length, error));
    if (length >= bytes || strlen(text) != length)
        return json_node_fail(&node, error, TCA_ERR_INVALID, "has %zu bytes, allowed: 0 to %zu",
                              length, bytes - 1);
    memcpy(text_out, text, length + 1);
    return TCA_OK;
}

static enum tca_status read_digest(const struct json_node *root, const char *key,
                                   char hex_out[SHA256_HEX_BYTES], struct tca_error *error)
{
    const struct json_node node = json_node_get(root, key);
    size_t digits;

    TCA_TRY(read_short(root, key, hex_out, SHA256_HEX_BYTES, error));
    digits = strspn(hex_out, "0123456789abcdef");
    if (hex_out[digits] != '\0' || (digits != 0 && digits != SHA256_HEX_BYTES - 1))
        return json_node_fail(&node, error, TCA_ERR_INVALID, "is no SHA-256");
    return TCA_OK;
}

static enum tca_status read_long(const struct json_node *root, const char *key,
                                 struct bytes *text_out, struct tca_error *error)
{
    const struct json_node node = json_node_get(root, key);
    const char *text;
    size_t length;

    TCA_TRY(json_node_string(&node, &text, &length, error));
    return bytes_append(text_out, text, length);
}

static enum tca_status read_counts(const struct json_node *root, struct document *document,
                                   struct tca_error *error)
{
    const struct {
        const char *key;
        int64_t *count;
    } members[] = {
        {"byte_count", &document->byte_count},     {"expected_bytes", &document->expected_bytes},
        {"token_count", &document->token_count},   {"create_time_ms", &document->create_time_ms},
        {"last_used_ms", &document->last_used_ms},
    };

    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
        const struct json_node node = json_node_get(root, members[i].key);

        TCA_TRY(json_node_int(&node, 0, INT64_MAX, members[i].count, error));
    }
    return TCA_OK;
}

static enum tca_status read_flag(const struct json_node *root, const char *key, bool *flag_out,
                                 struct tca_error *error)
{
    const struct json_node node = json_node_get(root, key);

    return json_node_bool(&node, flag_out, error);
}

static enum tca_status read_identity(const struct json_node *root,
                                     struct document_identity *identity, struct tca_error *error)
{
    const struct json_node keep = json_node_get(root, "keep");
    const struct json_node rule = json_node_get(root, "rule");
    const struct json_node node = json_node_get(root, "encoding");
    char encoding[32];

    TCA_TRY(read_short(root, "encoding", encoding, sizeof(encoding), error));
    if (strcmp(encoding, encodings[CONTENT_TOKEN_IDS_U32LE]) == 0)
        identity->encoding = CONTENT_TOKEN_IDS_U32LE;
    else if (strcmp(encoding, encodings[CONTENT_TEXT_UTF8]) != 0)
        return json_node_fail(&node, error, TCA_ERR_INVALID, "is none that this program knows");
    TCA_TRY(read_flag(root, "raw", &identity->is_raw, error));
    TCA_TRY(read_long(root, "system", &identity->system, error));
    TCA_TRY(read_short(root, "rule", identity->rule, sizeof(identity->rule), error));
    if (identity->rule[0] != '\0' &&
        attention_rule_find(identity->rule, strlen(identity->rule)) == NULL)
        return json_node_fail(&rule, error, TCA_ERR_INVALID, "is none that this program knows");
    TCA_TRY(json_node_double(&keep, &identity->keep, error));
    if (!(identity->keep >= 0.0 && identity->keep <= 1.0))
        return json_node_fail(&keep, error, TCA_ERR_INVALID, "is %g, allowed: 0 to 1",
                              identity->keep);
    return TCA_OK;
}

static enum tca_status read_state(const struct json_node *root, struct document *document,
                                  struct tca_error *error)
{
    const struct json_node failure = json_node_get(root, "failure");
    bool is_stored, has_failed;
    int64_t code;

    TCA_TRY(json_node_int(&failure, RPC_OK, RPC_UNAUTHENTICATED, &code, error));
    TCA_TRY(read_flag(root, "is_stored", &is_stored, error));
    TCA_TRY(read_short(root, "failure_text", document->failure_text, sizeof(document->failure_text),
                       error));
    /* Bytes that are not what they should be stay so. Memory, profile and disk were those of the
     * run that failed, and the bytes are still there: this one tries again. */
    has_failed = code == RPC_INVALID_ARGUMENT || (code != RPC_OK && document->sha256[0] == '\0');
    document->failure = has_failed ? (enum rpc_code)code : RPC_OK;
    if (!has_failed)
        document->failure_text[0] = '\0';
    document->state = has_failed                    ? DOCUMENT_FAILED
                      : document->sha256[0] == '\0' ? DOCUMENT_UPLOADING
                      : is_stored                   ? DOCUMENT_STORED
                                                    : DOCUMENT_QUEUED;
    return TCA_OK;
}

/* An object of this version and of this document. */
static enum tca_status check_head(const struct json_node *root, const struct document *document,
                                  struct tca_error *error)
{
    const struct json_node version = json_node_get(root, "version");
    const struct json_node node = json_node_get(root, "document_id");
    char id[DOCUMENT_ID_BYTES];
    int64_t number;

    TCA_TRY(json_node_int(&version, META_VERSION, META_VERSION, &number, error));
    TCA_TRY(read_short(root, "document_id", id, sizeof(id), error));
    if (strcmp(id, document->id) != 0)
        return json_node_fail(&node, error, TCA_ERR_INVALID, "is of another document");
    return TCA_OK;
}

static enum tca_status read_members(const struct json_node *root, struct document *document,
                                    struct tca_error *error)
{
    TCA_TRY(check_head(root, document, error));
    TCA_TRY(read_long(root, "display_name", &document->display_name, error));
    TCA_TRY(read_identity(root, &document->identity, error));
    TCA_TRY(read_flag(root, "pinned", &document->is_pinned, error));
    TCA_TRY(read_digest(root, "sha256", document->sha256, error));
    TCA_TRY(read_digest(root, "expected_sha256", document->expected_sha256, error));
    TCA_TRY(read_counts(root, document, error));
    return read_state(root, document, error);
}

enum tca_status document_meta_read(const char *name, const char *id, const struct bytes *json,
                                   struct document **document_out, struct tca_error *error)
{
    struct document *document = document_make(id);
    struct json_document *parsed = NULL;
    enum tca_status status = TCA_ERR_NO_MEMORY;

    if (document != NULL)
        status = json_document_parse(name, (const char *)json->data, json->size, &parsed, error);
    if (status == TCA_OK) {
        const struct json_node root = json_document_root(parsed);

        status = read_members(&root, document, error);
    }
    json_document_close(parsed);
    if (status == TCA_OK)
        *document_out = document;
    else
        document_free(document);
    return status;
}
