#include "worker/weights.h"

#include "model/rope.h"

#include <stdio.h>
#include <stdlib.h>

enum { VECTOR_ALIGNMENT = 16 /* floats: 64 bytes */, TENSOR_NAME_BYTES = 128, FUSED_PARTS = 3 };

/* A rectangle of a named tensor of the whole model. A vector has full_rows 0 and one row. */
struct tensor_part {
    const char *name; /* within its layer */
    int64_t full_rows, full_cols;
    int64_t row_first, rows;
    int64_t col_first, cols;
};

struct loader {
    struct weights *weights;
    const struct model_config *config;
    const struct shard *shard;
    const struct weight_files *files; /* NULL: pseudo-random */
    struct tca_error *error;
    int layer;          /* tensors belong to this one, or -1 */
    float *next_vector; /* device */
    float *staging;     /* host: the largest vector */
};

static int64_t vector_room(int64_t floats)
{
    return (floats + VECTOR_ALIGNMENT - 1) / VECTOR_ALIGNMENT * VECTOR_ALIGNMENT;
}

static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325U; /* FNV-1a */

    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3U;
    return hash;
}

/* About 1 / sqrt(cols), a power of two. */
static int dummy_scale(int64_t cols)
{
    int scale = 0;

    while ((int64_t)1 << (2 * (scale + 1)) <= cols)
        scale++;
    return scale;
}

static void tensor_name(const struct loader *loader, const char *name,
                        char full_out[TENSOR_NAME_BYTES])
{
    if (loader->layer < 0)
        snprintf(full_out, TENSOR_NAME_BYTES, "%s", name);
    else
        snprintf(full_out, TENSOR_NAME_BYTES, "model.layers.%d.%s", loader->layer, name);
}

/* Without files: the numbers of a part. */
static struct dummy_rows dummy_rows(const struct loader *loader, const struct tensor_part *part)
{
    char name[TENSOR_NAME_BYTES];

    tensor_name(loader, part->name, name);
    return (struct dummy_rows){.seed = hash_name(name),
                               .first = part->row_first * part->full_cols + part->col_first,
                               .stride = part->full_cols,
                               .rows = part->rows,
                               .scale = dummy_scale(part->full_cols)};
}

static void make_matrix_part(const struct loader *loader, const struct tensor_part *part,
                             uint16_t *out)
{
    struct dummy_rows rows = dummy_rows(loader, part);

    for (int64_t row = 0; row < part->rows; row++)
        for (int64_t col = 0; col < part->cols; col++)
            out[row * part->cols + col] =
                dummy_bf16(rows.seed, rows.first + row * rows.stride + col, rows.scale);
}

static enum tca_status read_matrix_part(const struct loader *loader, const struct tensor_part *part,
                                        uint16_t *out)
{
    char name[TENSOR_NAME_BYTES];
    struct weight_tensor tensor;

    if (loader->files == NULL) {
        make_matrix_part(loader, part, out);
        return TCA_OK;
    }
    tensor_name(loader, part->name, name);
    TCA_TRY(weight_files_find(loader->files, name, part->full_rows, part->full_cols, &tensor,
                              loader->error));
    weight_tensor_read_bf16(&tensor, part->row_first, part->rows, part->col_first, part->cols, out);
    return TCA_OK;
}

/* What a matrix is made into: one product, or one a KV head of this rank
 * whose sum is the product. */
struct matrix_use {
    bool keep_rows; /* serves embed */
    int sums;       /* 0: one product */
    int *sum_cols;  /* borrowed [sums] */
};

static const struct matrix_use plain_use = {0};
static const struct matrix_use table_use = {.keep_rows = true};

static enum tca_status create_matrix(const struct device *device, const uint16_t *host, int rows,
                                     int cols, const struct matrix_use *use,
                                     struct kernel_weight **weight_out)
{
    const struct kernel_backend *backend = device->backend;

    if (use->sums > 1 && backend->weight_create_parts != NULL)
        return backend->weight_create_parts(device->queue, host, rows, use->sum_cols, use->sums,
                                            weight_out);
    return backend->weight_create(device->queue, host, rows, cols, use->keep_rows, weight_out);
}

/* Stack `count` parts of equal width, `rows` in all, on the host and give them to the device. */
static enum tca_status read_matrix(const struct loader *loader, const struct tensor_part *parts,
                                   int count, int64_t rows, const struct matrix_use *use,
                                   struct kernel_weight **weight_out)
{
    enum tca_status status = TCA_OK;
    uint16_t *host = malloc((size_t)(rows * parts[0].cols) * sizeof(*host)); /* [rows, cols] bf16 */
    uint16_t *next = host;

    if (host == NULL)
        return tca_fail(loader->error, TCA_ERR_NO_MEMORY, "no memory to read %s (%lld x %lld)",
                        parts[0].name, (long long)rows, (long long)parts[0].cols);
    for (int i = 0; i < count && status == TCA_OK; i++) {
        status = read_matrix_part(loader, &parts[i], next);
        next += parts[i].rows * parts[i].cols;
    }
    if (status == TCA_OK) {
        status = create_matrix(&loader->weights->device, host, (int)rows, (int)parts[0].cols, use,
                               weight_out);
        if (status != TCA_OK)
            tca_fail(loader->error, status, "cannot put %s on the device: %s", parts[0].name,
                     tca_status_text(status));
    }
    free(host);
    return status;
}

/* The same without files, where the device makes the numbers up. */
static enum tca_status make_matrix(const struct loader *loader, const struct tensor_part *parts,
                                   int count, struct kernel_weight **weight_out)
{
    const struct device *device = &loader->weights->device;
    struct dummy_rows runs[FUSED_PARTS];
    enum tca_status status;

    for (int i = 0; i < count; i++)
        runs[i] = dummy_rows(loader, &parts[i]);
    status = device->backend->weight_create_dummy(device->queue, runs, count, (int)parts[0].cols,
                                                  weight_out);
    if (status != TCA_OK)
        return tca_fail(loader->error, status, "cannot make %s up on the device: %s", parts[0].name,
                        tca_status_text(status));
    return TCA_OK;
}

/* Stack `count` parts of equal width into one device matrix. */
static enum tca_status load_matrix(const struct loader *loader, const struct tensor_part *parts,
                                   int count, const struct matrix_use *use,
                                   struct kernel_weight **weight_out)
{
    const struct kernel_backend *backend = loader->weights->device.backend;
    int64_t rows = 0;

    for (int i = 0; i < count; i++)
        rows += parts[i].rows;
    if (loader->files == NULL && backend->weight_create_dummy != NULL)
        TCA_TRY(make_matrix(loader, parts, count, weight_out));
    else
        TCA_TRY(read_matrix(loader, parts, count, rows, use, weight_out));
    loader->weights->bytes += backend->weight_bytes(*weight_out);
    return TCA_OK;
}

/* Upload host values to the next place among the vectors. */
static enum tca_status place_vector(struct loader *loader, const float *host, int64_t count,
                                    float **vector_out)
{
    const struct device *device = &loader->weights->device;
    enum tca_status status = device->backend->upload(device->queue, loader->next_vector, host,
                                                     (size_t)count * sizeof(float));

    if (status != TCA_OK)
        return tca_fail(loader->error, status, "cannot put norms on the device: %s",
                        tca_status_text(status));
    *vector_out = loader->next_vector;
    loader->next_vector += vector_room(count);
    return TCA_OK;
}

/* Concatenate `count` vectors' parts. dummy: about the value of every element without files. */
static enum tca_status load_vector(struct loader *loader, const struct tensor_part *parts,
                                   int count, float dummy, float **vector_out)
{
    int64_t filled = 0;

    for (int i = 0; i < count; i++) {
        const struct tensor_part *part = &parts[i];
        char name[TENSOR_NAME_BYTES];
        struct weight_tensor tensor;

        tensor_name(loader, part->name, name);
        if (loader->files == NULL) {
            for (int64_t col = 0; col < part->cols; col++)
                loader->staging[filled + col] =
                    dummy + dummy_value(hash_name(name), part->col_first + col, 3);
        } else {
            TCA_TRY(
                weight_files_find(loader->files, name, 0, part->full_cols, &tensor, loader->error));
            weight_tensor_read_f32(&tensor, 0, 1, part->col_first, part->cols,
                                   loader->staging + filled);
        }
        filled += part->cols;
    }
    return place_vector(loader, loader->staging, filled, vector_out);
}

/* A matrix whose columns belong to this rank's KV heads, head h's from first_col(h): their products
 * are added in one order on any number of ranks (base/sum_tree.h). One head is one product, also
 * where ranks share it. */
static enum tca_status load_summed(const struct loader *loader, const struct tensor_part *matrix,
                                   int (*first_col)(const struct model_config *, int kv_head),
                                   struct kernel_weight **weight_out)
{
    const struct shard *shard = loader->shard;
    struct matrix_use use = {0};
    int *cols;
    enum tca_status status;

    if (shard->kv_heads == 1)
        return load_matrix(loader, matrix, 1, &plain_use, weight_out);
    cols = malloc((size_t)shard->kv_heads * sizeof(*cols));
    if (cols == NULL)
        return tca_fail(loader->error, TCA_ERR_NO_MEMORY, "no memory to read %s", matrix->name);
    use.sum_cols = cols;
    for (int i = 0; i < shard->kv_heads; i++) {
        int head = shard->kv_head_first + i;

        cols[use.sums] = first_col(loader->config, head + 1) - first_col(loader->config, head);
        use.sums += cols[use.sums] > 0;
    }
    status = load_matrix(loader, matrix, 1, &use, weight_out);
    free(cols);
    return status;
}

/* First input column of o_proj that belongs to a KV head's query heads. */
static int attended_first(const struct model_config *config, int kv_head)
{
    return kv_head * (config->q_heads / config->kv_heads) * config->head_dim;
}

static struct tensor_part whole_vector(const char *name, int64_t cols)
{
    return (struct tensor_part){.name = name, .full_cols = cols, .rows = 1, .cols = cols};
}

/* Rows of `heads` heads of a projection from `hidden` inputs. */
static struct tensor_part head_rows(const struct loader *loader, const char *name, int all_heads,
                                    int first, int heads)
{
    int64_t head_dim = loader->config->head_dim;

    return (struct tensor_part){.name = name,
                                .full_rows = all_heads * head_dim,
                                .full_cols = loader->config->hidden,
                                .row_first = first * head_dim,
                                .rows = heads * head_dim,
                                .cols = loader->config->hidden};
}

/* The same part of the projection's bias. */
static struct tensor_part head_bias(struct tensor_part rows, const char *name)
{
    return (struct tensor_part){.name = name,
                                .full_cols = rows.full_rows,
                                .rows = 1,
                                .col_first = rows.row_first,
                                .cols = rows.rows};
}

static enum tca_status load_attention(struct loader *loader, struct layer_weights *layer)
{
    const struct model_config *config = loader->config;
    const struct shard *shard = loader->shard;
    struct tensor_part norm = whole_vector("input_layernorm.weight", config->hidden);
    struct tensor_part qkv[FUSED_PARTS] = {
        head_rows(loader, "self_attn.q_proj.weight", config->q_heads, shard->q_head_first,
                  shard->q_heads),
        head_rows(loader, "self_attn.k_proj.weight", config->kv_heads, shard->kv_head_first,
                  shard->kv_heads),
        head_rows(loader, "self_attn.v_proj.weight", config->kv_heads, shard->kv_head_first,
                  shard->kv_heads),
    };
    struct tensor_part o_proj = {.name = "self_attn.o_proj.weight",
                                 .full_rows = config->hidden,
                                 .full_cols = qkv[0].full_rows,
                                 .rows = config->hidden,
                                 .col_first = qkv[0].row_first,
                                 .cols = qkv[0].rows};

    TCA_TRY(load_vector(loader, &norm, 1, 1.0F, &layer->attention_norm));
    TCA_TRY(load_matrix(loader, qkv, FUSED_PARTS, &plain_use, &layer->qkv));
    if (config->has_qkv_bias) {
        struct tensor_part bias[FUSED_PARTS] = {
            head_bias(qkv[0], "self_attn.q_proj.bias"),
            head_bias(qkv[1], "self_attn.k_proj.bias"),
            head_bias(qkv[2], "self_attn.v_proj.bias"),
        };

        TCA_TRY(load_vector(loader, bias, FUSED_PARTS, 0.0F, &layer->qkv_bias));
    }
    if (config->has_qk_norm) {
        struct tensor_part q_norm = whole_vector("self_attn.q_norm.weight", config->head_dim);
        struct tensor_part k_norm = whole_vector("self_attn.k_norm.weight", config->head_dim);

        TCA_TRY(load_vector(loader, &q_norm, 1, 1.0F, &layer->q_norm));
        TCA_TRY(load_vector(loader, &k_norm, 1, 1.0F, &layer->k_norm));
    }
    return load_summed(loader, &o_proj, attended_first, &layer->o_proj);
}

static enum tca_status load_ffn(struct loader *loader, struct layer_weights *layer)
{
    const struct model_config *config = loader->config;
    const struct shard *shard = loader->shard;
    struct tensor_part norm = whole_vector("post_attention_layernorm.weight", config->hidden);
    struct tensor_part gate = {.name = "mlp.gate_proj.weight",
                               .full_rows = config->ffn,
                               .full_cols = config->hidden,
                               .row_first = shard->ffn_first,
                               .rows = shard->ffn,
                               .cols = config->hidden};
    struct tensor_part gate_up[2] = {gate, gate};
    struct tensor_part down = {.name = "mlp.down_proj.weight",
                               .full_rows = config->hidden,
                               .full_cols = config->ffn,
                               .rows = config->hidden,
                               .col_first = shard->ffn_first,
                               .cols = shard->ffn};

    gate_up[1].name = "mlp.up_proj.weight";
    TCA_TRY(load_vector(loader, &norm, 1, 1.0F, &layer->ffn_norm));
    TCA_TRY(load_matrix(loader, gate_up, 2, &plain_use, &layer->gate_up));
    return load_summed(loader, &down, shard_plan_ffn_first, &layer->down);
}

static enum tca_status load_rope(struct loader *loader)
{
    const struct model_config *config = loader->config;

    rope_frequencies(&config->rope, config->head_dim, config->max_positions, loader->staging,
                     &loader->weights->rope_magnitude);
    return place_vector(loader, loader->staging, config->head_dim / 2, &loader->weights->inv_freq);
}

static enum tca_status load_vocabulary(struct loader *loader)
{
    const struct model_config *config = loader->config;
    struct weights *weights = loader->weights;
    struct tensor_part rows = {.name = "model.embed_tokens.weight",
                               .full_rows = config->vocab,
                               .full_cols = config->hidden,
                               .row_first = loader->shard->vocab_first,
                               .rows = loader->shard->vocab,
                               .cols = config->hidden};
    struct tensor_part norm = whole_vector("model.norm.weight", config->hidden);

    TCA_TRY(load_matrix(loader, &rows, 1, &table_use, &weights->embedding));
    if (config->has_tied_embeddings) {
        weights->lm_head = weights->embedding;
    } else {
        rows.name = "lm_head.weight";
        TCA_TRY(load_matrix(loader, &rows, 1, &plain_use, &weights->lm_head));
    }
    return load_vector(loader, &norm, 1, 1.0F, &weights->final_norm);
}

static int64_t vector_floats(const struct model_config *config, const struct shard *shard)
{
    int64_t qkv = (int64_t)(shard->q_heads + 2 * shard->kv_heads) * config->head_dim;
    int64_t layer = 2 * vector_room(config->hidden);

    if (config->has_qkv_bias)
        layer += vector_room(qkv);
    if (config->has_qk_norm)
        layer += 2 * vector_room(config->head_dim);
    return layer * config->layers + vector_room(config->hidden) + vector_room(config->head_dim / 2);
}

static enum tca_status load_all(struct loader *loader)
{
    struct weights *weights = loader->weights;

    loader->layer = -1;
    TCA_TRY(load_vocabulary(loader));
    TCA_TRY(load_rope(loader));
    for (int layer = 0; layer < weights->layers; layer++) {
        loader->layer = layer;
        TCA_TRY(load_attention(loader, &weights->layer[layer]));
        TCA_TRY(load_ffn(loader, &weights->layer[layer]));
    }
    return TCA_OK;
}

enum tca_status weights_create(const struct device *device, const struct model_config *config,
                               const struct shard *shard, const struct weight_files *files,
                               struct weights **weights_out, struct tca_error *error)
{
    int64_t qkv = (int64_t)(shard->q_heads + 2 * shard->kv_heads) * config->head_dim;
    int64_t longest = qkv > config->hidden ? qkv : config->hidden;
    struct loader loader = {.config = config, .shard = shard, .files = files, .error = error};
    struct weights *weights = calloc(1, sizeof(*weights));
    enum tca_status status = TCA_ERR_NO_MEMORY;
    void *vectors;

    if (weights == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the list of layers");
    weights->device = *device;
    weights->layer = calloc((size_t)config->layers, sizeof(*weights->layer));
    loader.staging = malloc((size_t)longest * sizeof(float));
    if (weights->layer == NULL || loader.staging == NULL) {
        tca_fail(error, status, "no memory for the list of layers");
        goto out;
    }
    weights->layers = config->layers;
    weights->vector_bytes = (size_t)vector_floats(config, shard) * sizeof(float);
    status = device->backend->alloc(device->index, weights->vector_bytes, &vectors);
    if (status != TCA_OK) {
        tca_fail(error, status, "no device memory for the model's norms: %s",
                 tca_status_text(status));
        goto out;
    }
    weights->vectors = vectors;
    weights->bytes = weights->vector_bytes;
    loader.weights = weights;
    loader.next_vector = weights->vectors;
    status = load_all(&loader);
out:
    free(loader.staging);
    if (status != TCA_OK) {
        weights_destroy(weights);
        return status;
    }
    *weights_out = weights;
    return TCA_OK;
}

static void destroy_matrix(const struct device *device, struct kernel_weight *weight)
{
    if (weight != NULL)
        device->backend->weight_destroy(device->queue, weight);
}

void weights_destroy(struct weights *weights)
{
    const struct device *device;

    if (weights == NULL)
        return;
    device = &weights->device;
    for (int i = 0; i < weights->layers; i++) {
        destroy_matrix(device, weights->layer[i].qkv);
        destroy_matrix(device, weights->layer[i].o_proj);
        destroy_matrix(device, weights->layer[i].gate_up);
        destroy_matrix(device, weights->layer[i].down);
    }
    if (weights->lm_head != weights->embedding)
        destroy_matrix(device, weights->lm_head);
    destroy_matrix(device, weights->embedding);
    device->backend->free(device->index, weights->vectors, weights->vector_bytes);
    free(weights->layer);
    free(weights);
}
