#include "model/weight_files.h"

#include "base/json.h"
#include "base/sha256.h"
#include "model/safetensors.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INDEX_BYTES_MAX = 100 << 20, SAMPLE_BYTES = 4096 };

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

struct weight_files {
    struct safetensors **files; /* [file_count], owned */
    size_t file_count;
    const struct safetensors_entry *
        *entries; /* [count] of all files in the order of names, owned */
    size_t count;
};

static int by_name(const void *left, const void *right)
{
    const struct safetensors_entry *const *a = left, *const *b = right;

    return strcmp((*a)->name, (*b)->name);
}

static int name_against_entry(const void *name, const void *entry)
{
    return strcmp(name, (*(const struct safetensors_entry *const *)entry)->name);
}

static const struct safetensors_entry *find(const struct weight_files *files, const char *name)
{
    const struct safetensors_entry *const *entry =
        bsearch(name, files->entries, files->count, sizeof(*files->entries), name_against_entry);

    return entry != NULL ? *entry : NULL;
}

static enum tca_status add_file(struct weight_files *files, const char *folder, const char *name,
                                struct tca_error *error)
{
    struct safetensors **grown;

    for (size_t i = 0; i < files->file_count; i++)
        if (strcmp(files->files[i]->name, name) == 0)
            return TCA_OK;
    grown = realloc(files->files, (files->file_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", folder);
    files->files = grown;
    TCA_TRY(safetensors_open(folder, name, &grown[files->file_count], error));
    files->file_count++;
    return TCA_OK;
}

/* A shard is a file of the folder itself: an index must not reach elsewhere. */
static enum tca_status shard_name(const struct json_node *node, const char **name_out,
                                  struct tca_error *error)
{
    size_t bytes;

    TCA_TRY(json_node_string(node, name_out, &bytes, error));
    if (bytes == 0 || bytes > NAME_MAX || (*name_out)[0] == '.' || strlen(*name_out) != bytes ||
        memchr(*name_out, '/', bytes) != NULL)
        return json_node_fail(node, error, TCA_ERR_INVALID,
                              "= \"%.80s\" must be the name of a file in the model's folder",
                              *name_out);
    return TCA_OK;
}

static enum tca_status add_shards(struct weight_files *files, const char *folder,
                                  const struct json_node *map, struct tca_error *error)
{
    struct json_node child = {0};

    TCA_TRY(json_node_expect(map, JSON_TYPE_OBJECT, error));
    while (json_node_next(map, &child)) {
        const char *name;

        TCA_TRY(shard_name(&child, &name, error));
        TCA_TRY(add_file(files, folder, name, error));
    }
    return TCA_OK;
}

static enum tca_status check_index(const struct weight_files *files, const struct json_node *map,
                                   struct tca_error *error)
{
    struct json_node child = {0};

    while (json_node_next(map, &child)) {
        const struct safetensors_entry *entry = find(files, child.key);
        const char *name;

        TCA_TRY(shard_name(&child, &name, error));
        if (entry == NULL || strcmp(entry->file->name, name) != 0)
            return json_node_fail(&child, error, TCA_ERR_INVALID,
                                  "= \"%.80s\", but that file has no such tensor", name);
    }
    return TCA_OK;
}

static enum tca_status sort_entries(struct weight_files *files, const char *folder,
                                    struct tca_error *error)
{
    size_t count = 0;

    for (size_t i = 0; i < files->file_count; i++)
        count += files->files[i]->count;
    files->entries = calloc(count + 1, sizeof(*files->entries));
    if (files->entries == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", folder);
    for (size_t i = 0; i < files->file_count; i++)
        for (size_t j = 0; j < files->files[i]->count; j++)
            files->entries[files->count++] = &files->files[i]->entries[j];
    qsort(files->entries, count, sizeof(*files->entries), by_name);
    for (size_t i = 1; i < count; i++)
        if (strcmp(files->entries[i - 1]->name, files->entries[i]->name) == 0)
            return tca_fail(error, TCA_ERR_INVALID, "%s: %.200s: the same tensor is in %s",
                            files->entries[i]->file->name, files->entries[i]->name,
                            files->entries[i - 1]->file->name);
    return TCA_OK;
}

static enum tca_status open_shards(struct weight_files *files, const char *folder,
                                   const char *index_path, struct tca_error *error)
{
    struct json_document *index;
    struct json_node root, map;
    enum tca_status status;

    TCA_TRY(json_document_open(index_path, INDEX_BYTES_MAX, &index, error));
    root = json_document_root(index);
    map = json_node_get(&root, "weight_map");
    status = add_shards(files, folder, &map, error);
    if (status == TCA_OK)
        status = sort_entries(files, folder, error);
    if (status == TCA_OK)
        status = check_index(files, &map, error);
    json_document_close(index);
    return status;
}

/* As transformers chooses: the single file, else the index. */
static enum tca_status open_folder(struct weight_files *files, const char *folder,
                                   struct tca_error *error)
{
    char single_path[PATH_MAX], index_path[PATH_MAX];

    if ((size_t)snprintf(index_path, sizeof(index_path), "%s/%s", folder, index_name) >=
        sizeof(index_path))
        return tca_fail(error, TCA_ERR_INVALID, "%.80s..: the path is too long", folder);
    snprintf(single_path, sizeof(single_path), "%s/%s", folder, single_name);
    if (access(single_path, F_OK) == 0) {
        TCA_TRY(add_file(files, folder, single_name, error));
        return sort_entries(files, folder, error);
    }
    if (access(index_path, F_OK) == 0)
        return open_shards(files, folder, index_path, error);
    return tca_fail(error, TCA_ERR_NOT_FOUND, "%s: no %s and no %s", folder, single_name,
                    index_name);
}

enum tca_status weight_files_open(const char *folder, struct weight_files **files_out,
                                  struct tca_error *error)
{
    struct weight_files *files = calloc(1, sizeof(*files));
    enum tca_status status;

    if (files == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "%s: out of memory", folder);
    status = open_folder(files, folder, error);
    if (status != TCA_OK) {
        weight_files_close(files);
        return status;
    }
    *files_out = files;
    return TCA_OK;
}

void weight_files_close(struct weight_files *files)
{
    if (files == NULL)
        return;
    for (size_t i = 0; i < files->file_count; i++)
        safetensors_close(files->files[i]);
    free(files->files);
    free(files->entries);
    free(files);
}

static enum tca_status check_readable(const struct safetensors_entry *entry,
                                      struct tca_error *error)
{
    if (entry->is_readable)
        return TCA_OK;
    if (entry->dimensions == 1 || entry->dimensions == 2)
        return tca_fail(error, TCA_ERR_UNSUPPORTED,
                        "%s: %s: dtype %s is not supported, allowed: BF16, F16, F32",
                        entry->file->name, entry->name, entry->dtype);
    return tca_fail(error, TCA_ERR_INVALID, "%s: %s: %d dimensions, expected 1 or 2",
                    entry->file->name, entry->name, entry->dimensions);
}

static void describe_shape(int dimensions, const int64_t *shape, char *text_out, size_t bytes)
{
    if (dimensions == 1)
        snprintf(text_out, bytes, "[%" PRId64 "]", shape[0]);
    else
        snprintf(text_out, bytes, "[%" PRId64 ", %" PRId64 "]", shape[0], shape[1]);
}

enum tca_status weight_files_find(const struct weight_files *files, const char *name, int64_t rows,
                                  int64_t cols, struct weight_tensor *tensor_out,
                                  struct tca_error *error)
{
    const int64_t expected[2] = {rows == 0 ? cols : rows, rows == 0 ? 0 : cols};
    const struct safetensors_entry *entry = find(files, name);
    char found_text[48], expected_text[48];

    if (entry == NULL)
        return tca_fail(error, TCA_ERR_NOT_FOUND, "%s: tensor %s is missing",
                        files->file_count == 1 ? files->files[0]->name : index_name, name);
    TCA_TRY(check_readable(entry, error));
    if (entry->dimensions != (rows == 0 ? 1 : 2) || entry->shape[0] != expected[0] ||
        (rows != 0 && entry->shape[1] != expected[1])) {
        describe_shape(entry->dimensions, entry->shape, found_text, sizeof(found_text));
        describe_shape(rows == 0 ? 1 : 2, expected, expected_text, sizeof(expected_text));
        return tca_fail(error, TCA_ERR_INVALID, "%s: %s: shape %s, expected %s", entry->file->name,
                        name, found_text, expected_text);
    }
    *tensor_out = (struct weight_tensor){
        .name = entry->name,
        .file = entry->file->name,
        .dtype = entry->weight_dtype,
        .dimensions = entry->dimensions,
        .shape = {entry->shape[0], entry->shape[1]},
        .data = entry->file->data + entry->begin,
    };
    return TCA_OK;
}

static enum tca_status hash_entry(struct sha256 *sha, const struct safetensors_entry *entry)
{
    const uint8_t *data = entry->file->data + entry->begin;
    const size_t bytes = entry->end - entry->begin;
    const size_t sample = bytes < SAMPLE_BYTES ? bytes : SAMPLE_BYTES;
    char facts[128];

    snprintf(facts, sizeof(facts), " %s %d %" PRId64 " %" PRId64 " %zu\n", entry->dtype,
             entry->dimensions, entry->shape[0], entry->shape[1], bytes);
    TCA_TRY(sha256_update(sha, entry->name, strlen(entry->name)));
    TCA_TRY(sha256_update(sha, facts, strlen(facts)));
    TCA_TRY(sha256_update(sha, data, sample));
    return sha256_update(sha, data + bytes - sample, sample);
}

enum tca_status weight_files_fingerprint(const struct weight_files *files,
                                         char fingerprint_out[WEIGHT_FINGERPRINT_BYTES])
{
    enum tca_status status;
    struct sha256 *sha;

    TCA_TRY(sha256_create(&sha));
    status = TCA_OK;
    for (size_t i = 0; i < files->count && status == TCA_OK; i++)
        status = hash_entry(sha, files->entries[i]);
    if (status == TCA_OK)
        status = sha256_hex(sha, fingerprint_out);
    sha256_destroy(sha);
    return status;
}
