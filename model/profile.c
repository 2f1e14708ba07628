#include "model/profile.h"

#include "base/json.h"
#include "base/json_write.h"
#include "base/sha256.h"
#include "base/version.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 256 * 1024 * 1024 };

static const char format_name[] = "tca-profile-1";
static const char *const table_names[PROFILE_TABLES] = {
    [PROFILE_PREFILL] = "prefill",
    [PROFILE_QUESTION] = "question",
};

static size_t curve_floats(const struct profile *profile)
{
    return (size_t)profile->lengths * (size_t)profile->layers * (size_t)profile->kv_heads *
           (size_t)profile->points;
}

enum tca_status profile_allocate(struct profile *profile, bool has_tca)
{
    const size_t heads = (size_t)profile->layers * (size_t)profile->kv_heads;

    for (int table = 0; table < PROFILE_TABLES; table++) {
        profile->mass[table] = calloc(curve_floats(profile), sizeof(float));
        if (profile->mass[table] == NULL)
            goto err_deinit;
    }
    if (has_tca) {
        profile->tca = calloc(heads, sizeof(*profile->tca));
        if (profile->tca == NULL)
            goto err_deinit;
    }
    return TCA_OK;

err_deinit:
    profile_deinit(profile);
    return TCA_ERR_NO_MEMORY;
}

void profile_deinit(struct profile *profile)
{
    for (int table = 0; table < PROFILE_TABLES; table++) {
        free(profile->mass[table]);
        profile->mass[table] = NULL;
    }
    free(profile->tca);
    profile->tca = NULL;
}

void profile_close(struct profile *profile)
{
    if (profile == NULL)
        return;
    profile_deinit(profile);
    free(profile);
}

/* --- Reading ------------------------------------------------------------------------------- */

static enum tca_status read_text(const struct json_node *root, const char *key, char *out,
                                 size_t out_bytes, struct tca_error *error)
{
    const struct json_node node = json_node_get(root, key);
    const char *text;
    size_t bytes;

    TCA_TRY(json_node_string(&node, &text, &bytes, error));
    if (bytes >= out_bytes || memchr(text, '\0', bytes) != NULL)
        return json_node_fail(&node, error, TCA_ERR_INVALID, "must be a text of 0 to %zu bytes",
                              out_bytes - 1);
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return TCA_OK;
}

static enum tca_status read_int(const struct json_node *root, const char *key, int64_t min,
                                int64_t max, int64_t *out, struct tca_error *error)
{
    const struct json_node node = json_node_get(root, key);

    return json_node_int(&node, min, max, out, error);
}

static enum tca_status expect_count(const struct json_node *node, size_t min, size_t max,
                                    struct tca_error *error)
{
    TCA_TRY(json_node_expect(node, JSON_TYPE_ARRAY, error));
    if (json_node_count(node) < min || json_node_count(node) > max)
        return json_node_fail(node, error, TCA_ERR_INVALID, "has %zu elements, not %zu to %zu",
                              json_node_count(node), min, max);
    return TCA_OK;
}

static enum tca_status read_shares(const struct json_node *root, struct profile *profile,
                                   struct tca_error *error)
{
    const struct json_node list = json_node_get(root, "shares");
    struct json_node child = {0};
    double before = 0.0, share = 0.0;

    TCA_TRY(expect_count(&list, 2, PROFILE_POINTS_MAX, error));
    while (json_node_next(&list, &child)) {
        TCA_TRY(json_node_double(&child, &share, error));
        if (!(share > before && share <= 1.0))
            return json_node_fail(&child, error, TCA_ERR_INVALID,
                                  "must rise and stay in (0, 1], not be %g", share);
        profile->share[profile->points++] = (float)share;
        before = share;
    }
    if (share != 1.0)
        return json_node_fail(&list, error, TCA_ERR_INVALID, "must end with 1");
    return TCA_OK;
}

static enum tca_status read_lengths(const struct json_node *root, struct profile *profile,
                                    struct tca_error *error)
{
    const struct json_node list = json_node_get(root, "lengths");
    struct json_node child = {0};
    int64_t before = 0;

    TCA_TRY(expect_count(&list, 1, PROFILE_LENGTHS_MAX, error));
    while (json_node_next(&list, &child)) {
        TCA_TRY(json_node_int(&child, before + 1, INT32_MAX, &before, error));
        profile->length[profile->lengths++] = before;
    }
    return TCA_OK;
}

static enum tca_status read_curve(const struct json_node *list, int points, float *out,
                                  struct tca_error *error)
{
    struct json_node child = {0};

    TCA_TRY(expect_count(list, (size_t)points, (size_t)points, error));
    while (json_node_next(list, &child)) {
        double mass = 0.0;

        TCA_TRY(json_node_double(&child, &mass, error));
        if (!(mass >= 0.0 && mass <= 1.0))
            return json_node_fail(&child, error, TCA_ERR_INVALID, "must be in [0, 1], not %g",
                                  mass);
        *out++ = (float)mass;
    }
    return TCA_OK;
}

/* A table is nested lists: lengths, layers, KV heads, points. */
static enum tca_status read_table(const struct json_node *root, enum profile_table table,
                                  struct profile *profile, struct tca_error *error)
{
    const struct json_node lengths = json_node_get(root, table_names[table]);
    struct json_node layers = {0};
    float *out = profile->mass[table];

    TCA_TRY(expect_count(&lengths, (size_t)profile->lengths, (size_t)profile->lengths, error));
    while (json_node_next(&lengths, &layers)) {
        struct json_node heads = {0};

        TCA_TRY(expect_count(&layers, (size_t)profile->layers, (size_t)profile->layers, error));
        while (json_node_next(&layers, &heads)) {
            const size_t count = (size_t)profile->kv_heads;
            struct json_node curve = {0};

            TCA_TRY(expect_count(&heads, count, count, error));
            while (json_node_next(&heads, &curve)) {
                TCA_TRY(read_curve(&curve, profile->points, out, error));
                out += profile->points;
            }
        }
    }
    return TCA_OK;
}

/* "tca": a list over layers of lists over KV heads of [mu, sigma]. */
static enum tca_status read_tca(const struct json_node *list, struct profile *profile,
                                struct tca_error *error)
{
    struct profile_tca *out = profile->tca;
    struct json_node layer = {0};

    TCA_TRY(expect_count(list, (size_t)profile->layers, (size_t)profile->layers, error));
    while (json_node_next(list, &layer)) {
        struct json_node head = {0};

        TCA_TRY(expect_count(&layer, (size_t)profile->kv_heads, (size_t)profile->kv_heads, error));
        while (json_node_next(&layer, &head)) {
            struct json_node number = {0};
            double value[2] = {0.0, 0.0};
            int i = 0;

            TCA_TRY(expect_count(&head, 2, 2, error));
            while (json_node_next(&head, &number))
                TCA_TRY(json_node_double(&number, &value[i++], error));
            if (!(fabs(value[0]) <= 64.0 && value[1] >= 0.01 && value[1] <= 64.0))
                return json_node_fail(&head, error, TCA_ERR_INVALID,
                                      "must be mu in [-64, 64] and sigma in [0.01, 64]");
            *out++ = (struct profile_tca){.mu = (float)value[0], .sigma = (float)value[1]};
        }
    }
    return TCA_OK;
}

static enum tca_status read_head(const struct json_node *root, struct profile *profile,
                                 struct tca_error *error)
{
    const struct json_node format_node = json_node_get(root, "format");
    char format[32];
    int64_t layers, kv_heads;

    TCA_TRY(read_text(root, "format", format, sizeof(format), error));
    if (strcmp(format, format_name) != 0)
        return json_node_fail(&format_node, error, TCA_ERR_INVALID, "must be \"%s\"", format_name);
    TCA_TRY(
        read_text(root, "fingerprint", profile->fingerprint, sizeof(profile->fingerprint), error));
    TCA_TRY(read_int(root, "layers", 1, PROFILE_HEADS_MAX, &layers, error));
    TCA_TRY(read_int(root, "kv_heads", 1, PROFILE_HEADS_MAX / layers, &kv_heads, error));
    TCA_TRY(read_int(root, "window_tokens", 0, INT32_MAX, &profile->window_tokens, error));
    TCA_TRY(read_int(root, "chunk_tokens", 1, INT32_MAX, &profile->chunk_tokens, error));
    TCA_TRY(
        read_int(root, "calibration_tokens", 1, INT64_MAX, &profile->calibration_tokens, error));
    profile->layers = (int)layers;
    profile->kv_heads = (int)kv_heads;
    return TCA_OK;
}

static enum tca_status check_model(const char *path, const struct profile *profile,
                                   const char *fingerprint, int layers, int kv_heads,
                                   struct tca_error *error)
{
    if (profile->layers != layers || profile->kv_heads != kv_heads)
        return tca_fail(error, TCA_ERR_PRECONDITION,
                        "%s: made for %d layers of %d KV heads, the model has %d of %d", path,
                        profile->layers, profile->kv_heads, layers, kv_heads);
    if (strcmp(profile->fingerprint, fingerprint) != 0)
        return tca_fail(error, TCA_ERR_PRECONDITION,
                        "%s: made for the model %.16s, this one is %.16s; run tca-calibrate", path,
                        profile->fingerprint, fingerprint);
    return TCA_OK;
}

static enum tca_status set_id(struct profile *profile)
{
    char digest[SHA256_HEX_BYTES];
    struct bytes text = {0};
    struct sha256 *sha = NULL;
    enum tca_status status = profile_write(profile, &text);

    if (status == TCA_OK)
        status = sha256_create(&sha);
    if (status == TCA_OK)
        status = sha256_update(sha, text.data, text.size);
    if (status == TCA_OK)
        status = sha256_hex(sha, digest);
    sha256_destroy(sha);
    bytes_free(&text);
    TCA_TRY(status);
    memcpy(profile->id, digest, PROFILE_ID_BYTES - 1);
    profile->id[PROFILE_ID_BYTES - 1] = '\0';
    return TCA_OK;
}

/* Says so where a profile that reads well cannot be held. */
static enum tca_status check_kept(const struct json_node *root, enum tca_status status,
                                  struct tca_error *error)
{
    return status == TCA_OK
               ? TCA_OK
               : json_node_fail(root, error, status, "cannot be kept: %s", tca_status_text(status));
}

static enum tca_status read_tables(const struct json_node *root, struct profile *profile,
                                   struct tca_error *error)
{
    const struct json_node tca = json_node_get(root, "tca");

    TCA_TRY(read_shares(root, profile, error));
    TCA_TRY(read_lengths(root, profile, error));
    TCA_TRY(check_kept(root, profile_allocate(profile, json_node_exists(&tca)), error));
    for (int table = 0; table < PROFILE_TABLES; table++)
        TCA_TRY(read_table(root, (enum profile_table)table, profile, error));
    if (json_node_exists(&tca))
        TCA_TRY(read_tca(&tca, profile, error));
    return check_kept(root, set_id(profile), error);
}

enum tca_status profile_open(const char *path, const char *fingerprint, int layers, int kv_heads,
                             struct profile **profile_out, struct tca_error *error)
{
    struct json_document *document = NULL;
    struct profile *profile = calloc(1, sizeof(*profile));
    struct json_node root;
    enum tca_status status;

    if (profile == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: no memory", path);
    status = json_document_open(path, FILE_BYTES_MAX, &document, error);
    if (status != TCA_OK)
        goto err_close;
    root = json_document_root(document);
    status = read_head(&root, profile, error);
    if (status == TCA_OK)
        status = check_model(path, profile, fingerprint, layers, kv_heads, error);
    if (status == TCA_OK)
        status = read_tables(&root, profile, error);
    json_document_close(document);
    if (status != TCA_OK)
        goto err_close;
    *profile_out = profile;
    return TCA_OK;

err_close:
    profile_close(profile);
    return status;
}

/* --- Writing ------------------------------------------------------------------------------- */

static enum tca_status print(struct bytes *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static enum tca_status print(struct bytes *out, const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return bytes_append_text(out, text);
}

static enum tca_status write_floats(struct bytes *out, const float *values, int count)
{
    for (int i = 0; i < count; i++)
        TCA_TRY(print(out, "%s%.7g", i == 0 ? "[" : ", ", (double)values[i]));
    return bytes_append_text(out, "]");
}

static enum tca_status write_table(const struct profile *profile, enum profile_table table,
                                   struct bytes *out)
{
    const float *mass = profile->mass[table];

    TCA_TRY(print(out, ",\n \"%s\": [", table_names[table]));
    for (int n = 0; n < profile->lengths; n++)
        for (int layer = 0; layer < profile->layers; layer++)
            for (int head = 0; head < profile->kv_heads; head++) {
                const char *before = head > 0    ? ",\n    "
                                     : layer > 0 ? "],\n   ["
                                     : n > 0     ? "]],\n  [["
                                                 : "\n  [[";

                TCA_TRY(bytes_append_text(out, before));
                TCA_TRY(write_floats(out, mass, profile->points));
                mass += profile->points;
            }
    return bytes_append_text(out, "]]]");
}

static enum tca_status write_tca(const struct profile *profile, struct bytes *out)
{
    const struct profile_tca *tca = profile->tca;

    TCA_TRY(bytes_append_text(out, ",\n \"tca\": ["));
    for (int layer = 0; layer < profile->layers; layer++)
        for (int head = 0; head < profile->kv_heads; head++, tca++) {
            const char *before = head > 0 ? ", " : layer > 0 ? "],\n  [" : "\n  [";

            TCA_TRY(print(out, "%s[%.7g, %.7g]", before, (double)tca->mu, (double)tca->sigma));
        }
    return bytes_append_text(out, "]]");
}

enum tca_status profile_write(const struct profile *profile, struct bytes *json_out)
{
    TCA_TRY(print(json_out, "{\"format\": \"%s\",\n \"tool\": \"tca %s\",\n \"fingerprint\": ",
                  format_name, tca_version()));
    TCA_TRY(json_write_string(json_out, profile->fingerprint, strlen(profile->fingerprint)));
    TCA_TRY(print(json_out, ",\n \"layers\": %d,\n \"kv_heads\": %d,\n \"window_tokens\": %" PRId64,
                  profile->layers, profile->kv_heads, profile->window_tokens));
    TCA_TRY(print(json_out, ",\n \"chunk_tokens\": %" PRId64 ",\n \"calibration_tokens\": %" PRId64,
                  profile->chunk_tokens, profile->calibration_tokens));
    TCA_TRY(bytes_append_text(json_out, ",\n \"shares\": "));
    TCA_TRY(write_floats(json_out, profile->share, profile->points));
    for (int n = 0; n < profile->lengths; n++)
        TCA_TRY(print(json_out, "%s%" PRId64, n == 0 ? ",\n \"lengths\": [" : ", ",
                      profile->length[n]));
    TCA_TRY(bytes_append_text(json_out, "]"));
    for (int table = 0; table < PROFILE_TABLES; table++)
        TCA_TRY(write_table(profile, (enum profile_table)table, json_out));
    if (profile->tca != NULL)
        TCA_TRY(write_tca(profile, json_out));
    return bytes_append_text(json_out, "}\n");
}

static enum tca_status fail_io(struct tca_error *error, const char *path)
{
    return tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
}

static enum tca_status write_file(const char *path, const struct bytes *text,
                                  struct tca_error *error)
{
    FILE *file = fopen(path, "wb");
    bool is_written;

    if (file == NULL)
        return fail_io(error, path);
    is_written = fwrite(text->data, 1, text->size, file) == text->size && fflush(file) == 0 &&
                 fsync(fileno(file)) == 0;
    if (!is_written)
        fail_io(error, path);
    if (fclose(file) != 0 && is_written)
        return fail_io(error, path);
    return is_written ? TCA_OK : TCA_ERR_IO;
}

/* So that the rename is on disk too. */
static enum tca_status sync_folder_of(const char *path, struct tca_error *error)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    const int file = folder == NULL ? -1 : open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const enum tca_status status =
        file >= 0 && fsync(file) == 0 ? TCA_OK : fail_io(error, folder == NULL ? path : folder);

    if (file >= 0)
        close(file);
    free(folder);
    return status;
}

static enum tca_status replace_file(const char *path, const char *temporary,
                                    const struct bytes *text, struct tca_error *error)
{
    enum tca_status status = write_file(temporary, text, error);

    if (status == TCA_OK && rename(temporary, path) != 0)
        status = fail_io(error, path);
    if (status != TCA_OK) {
        unlink(temporary);
        return status;
    }
    return sync_folder_of(path, error);
}

enum tca_status profile_save(const struct profile *profile, const char *path,
                             struct tca_error *error)
{
    struct bytes text = {0};
    char *temporary = NULL;
    enum tca_status status = profile_write(profile, &text);

    if (status == TCA_OK && asprintf(&temporary, "%s.new", path) < 0)
        status = TCA_ERR_NO_MEMORY;
    if (status == TCA_OK) {
        status = replace_file(path, temporary, &text, error);
        free(temporary);
    } else {
        tca_fail(error, status, "%s: %s", path, tca_status_text(status));
    }
    bytes_free(&text);
    return status;
}

/* --- Asking -------------------------------------------------------------------------------- */

/* Curves `below` and `above` the length, and the weight of the one above. */
static double blend(const struct profile *profile, int64_t tokens, int *below, int *above)
{
    const int last = profile->lengths - 1;

    *above = 0;
    while (*above < last && profile->length[*above] < tokens)
        (*above)++;
    *below = *above > 0 ? *above - 1 : 0;
    if (tokens >= profile->length[*above])
        *below = *above;
    if (*below == *above || tokens <= profile->length[*below])
        return 1.0;
    return log((double)tokens / (double)profile->length[*below]) /
           log((double)profile->length[*above] / (double)profile->length[*below]);
}

void profile_curve(const struct profile *profile, enum profile_table table, int layer, int kv_head,
                   int64_t tokens, float *out)
{
    const size_t points = (size_t)profile->points;
    const size_t stride = (size_t)profile->layers * (size_t)profile->kv_heads * points;
    const float *head = profile->mass[table] +
                        ((size_t)layer * (size_t)profile->kv_heads + (size_t)kv_head) * points;
    int below, above;
    const double weight = blend(profile, tokens, &below, &above);

    for (size_t i = 0; i < points; i++) {
        const double low = (double)head[(size_t)below * stride + i];
        const double high = (double)head[(size_t)above * stride + i];

        out[i] = (float)(low + (high - low) * weight);
    }
}
