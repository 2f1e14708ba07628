/* What the forward pass may ask of a compute device. kernels/cpu is the oracle that the tests
 * hold kernels/cuda against, operation by operation.
 *
 * Tensors are dense and row-major unless a stride is given; shapes are written
 * [slowest, .., fastest]; bf16 is its upper 16 bits in a uint16_t. "act" is the backend's
 * `activation` dtype: that of linear outputs which other operations read. Device pointers come
 * from `alloc`; host arrays are named so. Operations are enqueued in order on one queue and may
 * return before the work is done; host arrays they take may be reused once they return.
 * 64-bit offsets everywhere: a document's K of one layer alone passes 2^31 elements. */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "base/error.h"
#include "kernels/dummy.h"
#include "kernels/select.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kernel_dtype { KERNEL_F32, KERNEL_BF16 };

/* One in-order stream of work on one device, used by one thread. A backend embeds this as the
 * first member of its own queue type. */
struct kernel_queue {
    int device;
};

/* A matrix prepared for `linear`, in the backend's own layout. */
struct kernel_weight;

/* Heads of this rank. q_heads is a multiple of kv_heads: query head h reads KV head
 * h / (q_heads / kv_heads). */
struct attention_shape {
    int q_heads;
    int kv_heads;
    int head_dim; /* a multiple of 8, at most 256 */
    float scale;  /* usually 1 / sqrt(head_dim) */
};

/* Keys and values to attend to: row i of head h starts at k + h * head_stride + i * head_dim, or at
 * k + head_offsets[h] + i * head_dim where those are given (a ragged core cache). */
struct attention_segment {
    const uint16_t *k, *v;       /* bf16 on the device, borrowed */
    int64_t head_stride;         /* elements */
    const int64_t *head_offsets; /* device [kv_heads], elements; NULL: by head_stride */
    int64_t rows; /* keys of every head, or the most of any when rows_per_head is given */
    const int32_t *rows_per_head; /* device [kv_heads], each 0..rows; NULL: all have `rows` */
    bool causal; /* the item's query t of T sees rows 0 .. rows - T + t; not with rows_per_head */
    /* Behind every head's rows, up to a multiple of 128, values are finite numbers that may be
     * read, as gather leaves them: fast kernels read whole tiles and multiply the rest by 0. */
    bool has_tail;
};

/* Heads that read the document in place, kept rows, own rows. */
enum { ATTENTION_SEGMENTS_MAX = 3 };

/* One sequence's queries in a step. Its keys are all its segments', softmaxed together. */
struct attention_item {
    int first_query; /* row of q and out */
    int queries;
    int segments; /* 1 .. ATTENTION_SEGMENTS_MAX */
    struct attention_segment segment[ATTENTION_SEGMENTS_MAX];
};

/* Where one sequence's new K and V rows go: head h's row i (of `tokens`) to
 * k + h * head_stride + (first_row + i) * head_dim. */
struct kv_append {
    int first_token; /* row of qkv */
    int tokens;
    uint16_t *k, *v; /* bf16 on the device */
    int64_t head_stride;
    int64_t first_row;
};

/* Where gathered K and V rows go, addressed as in attention_segment. With head_offsets a head's
 * room is its count rounded up to a multiple of 128 rows, at least. */
struct kv_copy {
    uint16_t *k, *v;             /* bf16 on the device */
    int64_t head_stride;         /* elements */
    const int64_t *head_offsets; /* device [kv_heads], elements; NULL: by head_stride */
    int64_t rows;                /* room of every head, or the most of any */
};

/* Ranks that share a KV head cut what belongs to a sequence into units: unit u is on stripe
 * u mod stripes. */
struct kernel_stripes {
    int stripes, stripe;
    int64_t unit; /* rows; or values, where several rows have one */
};

/* Per-head RMS norm of queries and keys (Qwen3). */
struct qk_norm {
    const float *q, *k; /* device [head_dim] f32; both NULL for models without QK-norm */
    float eps;
};

/* Products of up to so many rows may share what linear_prepare found for a power of two of rows. */
enum { LINEAR_SHARED_ROWS_LEAST = 8, LINEAR_SHARED_ROWS_MOST = 512 };

struct kernel_backend {
    const char *name;
    enum kernel_dtype activation;
    int step_rows;     /* of a prefill step that suits the device: larger ones gain little */
    double step_flops; /* most of a prefill step's dense attention: about a second's work */

    /* `threads`: CPU threads to use, at least 1; ignored by GPUs.
     * TCA_ERR_DEVICE: no such device. */
    enum tca_status (*queue_create)(int device, int threads, struct kernel_queue **queue_out);
    void (*queue_destroy)(struct kernel_queue *queue); /* waits for pending work */
    enum tca_status (*queue_wait)(struct kernel_queue *queue);

    /* Memory of the device, 64-byte aligned. TCA_ERR_NO_MEMORY. */
    enum tca_status (*alloc)(int device, size_t bytes, void **ptr_out);
    void (*free)(int device, void *ptr, size_t bytes); /* NULL is a no-op; really gives it back */
    /* free: what may still be taken, but for what the device's libraries take as they run. */
    enum tca_status (*memory)(int device, size_t *total_bytes_out, size_t *free_bytes_out);
    enum tca_status (*upload)(struct kernel_queue *queue, void *device, const void *host,
                              size_t bytes);
    /* Waits until the data is in `host`. */
    enum tca_status (*download)(struct kernel_queue *queue, void *host, const void *device,
                                size_t bytes);
    /* Within the device; no overlap. */
    enum tca_status (*copy)(struct kernel_queue *queue, void *to, const void *from, size_t bytes);
    enum tca_status (*zero)(struct kernel_queue *queue, void *device, size_t bytes);

    /* Prepare a matrix from host_rows [rows, cols] bf16, which may be freed afterwards.
     * keep_rows: also serve `embed`. TCA_ERR_NO_MEMORY. */
    enum tca_status (*weight_create)(struct kernel_queue *queue, const uint16_t *host_rows,
                                     int rows, int cols, bool keep_rows,
                                     struct kernel_weight **weight_out);
    /* Optional. weight_create for a matrix whose `linear` is to be the sum of the products over
     * `parts` runs of columns, part_cols (host [parts], cols in all), added by base/sum_tree.h: a
     * matrix that is cut over ranks between its parts then gives the bits of the whole one. NULL:
     * the backend adds in an order of its own. */
    enum tca_status (*weight_create_parts)(struct kernel_queue *queue, const uint16_t *host_rows,
                                           int rows, const int *part_cols, int parts,
                                           struct kernel_weight **weight_out);
    /* Optional. weight_create from made-up numbers, without a host's array: `count` runs of rows
     * (host array), one below the other, all of `cols` columns. NULL: the caller makes them on the
     * host. TCA_ERR_NO_MEMORY. */
    enum tca_status (*weight_create_dummy)(struct kernel_queue *queue,
                                           const struct dummy_rows *runs, int count, int cols,
                                           struct kernel_weight **weight_out);
    void (*weight_destroy)(struct kernel_queue *queue, struct kernel_weight *weight);
    size_t (*weight_bytes)(const struct kernel_weight *weight);

    /* out = x weight^T (+ bias). x: [rows, in] bf16; weight: [out, in]; bias: [out] f32 or NULL;
     * out: [rows, out] of out_dtype; fp32 accumulation; no aliasing. */
    enum tca_status (*linear)(struct kernel_queue *queue, void *out, enum kernel_dtype out_dtype,
                              const uint16_t *x, const struct kernel_weight *weight,
                              const float *bias, int rows);

    /* Optional. Find out now, by trials, which way of making this product is fastest; `linear` of
     * the same shape, alignment and dtype then goes that way. So does one of fewer rows, for which
     * nothing was prepared, where `rows` is the next of LINEAR_SHARED_ROWS_LEAST, twice as many, ..
     * _MOST, if the device can. Milliseconds on a GPU. Arguments as
     * linear's; out is overwritten, x is only read. Results differ by rounding at most. */
    enum tca_status (*linear_prepare)(struct kernel_queue *queue, void *out,
                                      enum kernel_dtype out_dtype, const uint16_t *x,
                                      const struct kernel_weight *weight, const float *bias,
                                      int rows);

    /* out row = table row (id - first_id), or zeros when that row is not in the table (another
     * rank has it; an all-reduce completes the sum). ids: host [rows]; out: [rows, cols] f32. */
    enum tca_status (*embed)(struct kernel_queue *queue, float *out,
                             const struct kernel_weight *table, const int32_t *ids, int rows,
                             int first_id);

    /* x += delta + rest (each unless NULL; rest only with delta); out = x / sqrt(mean(x^2) + eps) *
     * weight, per row (unless out is NULL). x: [rows, cols] f32; delta, rest: [rows, cols] act;
     * out: [rows, cols] bf16; weight: [cols] f32. */
    enum tca_status (*residual_norm)(struct kernel_queue *queue, uint16_t *out, float *x,
                                     const void *delta, const void *rest, const float *weight,
                                     int rows, int cols, float eps);

    /* table_out[t][i] = {cos, sin}(position[t] * inv_freq[i]) * magnitude, the product in f32 as
     * Hugging Face computes it. positions: host [rows]; inv_freq: device [half] f32;
     * table_out: [rows, half, 2] f32. Made once a step, read by every layer. */
    enum tca_status (*rope_table)(struct kernel_queue *queue, float *table_out,
                                  const int32_t *positions, int rows, const float *inv_freq,
                                  int half, float magnitude);

    /* Split a fused projection into heads. qkv: [rows, (q_heads + 2 kv_heads) * head_dim] act, in
     * the order Q, K, V. q and k heads are RMS-normalised with q_norm and k_norm ([head_dim] f32;
     * NULL: not), then rotated by rope's row of the token (pairs i, i + head_dim / 2). q goes to
     * q_out [rows, q_heads, head_dim] bf16, k and v to the places in appends (host array). */
    enum tca_status (*rope_append)(struct kernel_queue *queue, uint16_t *q_out,
                                   const struct kv_append *appends, int append_count,
                                   const void *qkv, const struct attention_shape *shape,
                                   const float *rope, const struct qk_norm *norm);

    /* Softmax attention of every item's queries over its segments, online (nothing of size
     * queries x keys). q, out: [rows, q_heads, head_dim] bf16; lse: [rows, q_heads] f32, natural
     * log, or NULL. A query that sees no key gets zeros and -inf. items: host array. */
    enum tca_status (*attention)(struct kernel_queue *queue, uint16_t *out, float *lse,
                                 const uint16_t *q, const struct attention_shape *shape,
                                 const struct attention_item *items, int item_count);

    /* Optional. Make now what `attention` would make at its first calls for up to `queries` queries
     * of an item: seconds on a GPU. Results do not depend on it. */
    enum tca_status (*attention_prepare)(struct kernel_queue *queue,
                                         const struct attention_shape *shape, int queries);

    /* out = silu(gate) * up. gate_up: [rows, 2 * cols] act, gate first; out: [rows, cols] bf16. */
    enum tca_status (*swiglu)(struct kernel_queue *queue, uint16_t *out, const void *gate_up,
                              int rows, int cols);

    /* out row i = x row indices[i]. x, out: [.., cols] f32; indices: host [rows]. */
    enum tca_status (*take_rows)(struct kernel_queue *queue, float *out, const float *x,
                                 const int32_t *indices, int rows, int cols);

    /* The `count` largest of each row in falling order, ties to the lowest id, and the row's
     * log-sum-exp: what a rank must tell of its vocabulary. Places beyond `cols` get -inf and
     * id -1. Waits.
     * logits: [rows, cols] f32; values_out, ids_out: host [rows, count]; lse_out: host [rows]. */
    enum tca_status (*logits_top)(struct kernel_queue *queue, float *values_out, int32_t *ids_out,
                                  float *lse_out, const float *logits, int rows, int cols,
                                  int count);

    /* --- TCA (docs/tca.md). ---
     * Blocks are SELECT_BLOCK_TOKENS rows from row 0 of a segment; the last may be short.
     * Observers are rows of q: a host array [count]. Masses are relative to an observer's log-sum-
     * exp over everything it attends to; an observer with -inf there counts as 0 everywhere. */

    /* scores_out[o][h][j] = log-sum-exp over the rows of block j of scale * q . k: one pass over
     * K, nothing of size observers x rows. Blocks past a head's rows_per_head get -inf.
     * q: [.., q_heads, head_dim] bf16; keys: not causal, v is not read;
     * scores_out: [count, q_heads, blocks] f32. */
    enum tca_status (*block_scores)(struct kernel_queue *queue, float *scores_out,
                                    const uint16_t *q, const struct attention_shape *shape,
                                    const int32_t *observers, int count,
                                    const struct attention_segment *keys);

    /* lse_out[o][h] = logaddexp(lse_own[observers[o]][h], log-sum-exp over j of scores[o][h][j]):
     * over all causal keys of an observer. lse_own: [.., q_heads] f32, of the own chunk's
     * attention; scores: [count, q_heads, blocks] f32; lse_out: [count, q_heads] f32, which may be
     * lse_own where observers are 0, 1, .. */
    enum tca_status (*observer_lse)(struct kernel_queue *queue, float *lse_out, const float *scores,
                                    const float *lse_own, const int32_t *observers, int count,
                                    int q_heads, int64_t blocks);

    /* masses_out[g][j] = max over observers and the group's query heads of exp(scores - lse).
     * scores: [count, q_heads, blocks] f32; lse: [count, q_heads] f32;
     * masses_out: [kv_heads, blocks] f32. */
    enum tca_status (*block_masses)(struct kernel_queue *queue, float *masses_out,
                                    const float *scores, const float *lse, int count,
                                    const struct attention_shape *shape, int64_t blocks);

    /* scores_out[g][i] = max over observers and the group's query heads of
     * exp(scale * q . k_i - lse); rows past a head's rows_per_head get 0. keys: not causal, v is
     * not read; lse: [count, q_heads] f32; scores_out: [kv_heads, rows] f32. */
    enum tca_status (*token_scores)(struct kernel_queue *queue, float *scores_out,
                                    const uint16_t *q, const float *lse,
                                    const struct attention_shape *shape, const int32_t *observers,
                                    int count, const struct attention_segment *keys);

    /* select_run() for every KV head, on the device, with the same result to the bit. input:
     * token_scores [kv_heads, tokens] and block_masses [kv_heads, blocks] are device pointers,
     * tca_shares is host [kv_heads, SELECT_TCA_SIZES]; budgets: host [kv_heads], 0: the head keeps
     * nothing (it reads its keys in place); kept_out: [kv_heads, kept_stride] i32 and counts_out:
     * [kv_heads] i32 on the device. TCA_ERR_INVALID, before anything is written: a budget is too
     * small for its rule or, cut to the tokens, larger than kept_stride. */
    enum tca_status (*select)(struct kernel_queue *queue, int32_t *kept_out, int64_t kept_stride,
                              int32_t *counts_out, enum select_rule rule,
                              const struct select_input *input, const int64_t *budgets,
                              int kv_heads);

    /* Copy the kept rows of every head together: row i of head h of the copy is row
     * kept[h][i] of keys; rows from counts[h] up to the next multiple of 128 (within the copy) are
     * zeros. counts[h] is at most copy->rows. kept: [kv_heads, kept_stride] i32 and counts:
     * [kv_heads] i32 on the device; the copy may not overlap keys. */
    enum tca_status (*gather)(struct kernel_queue *queue, const struct kv_copy *copy,
                              const struct attention_segment *keys, const int32_t *kept,
                              int64_t kept_stride, const int32_t *counts,
                              const struct attention_shape *shape);

    /* Merge two attentions of the same queries over different keys by their log-sum-exp, into the
     * first: out = (e^lse out + e^lse_other out_other) / (e^lse + e^lse_other), lse =
     * logaddexp(lse, lse_other). A side with -inf is not read; both -inf give zeros.
     * out, out_other: [rows, q_heads, head_dim] bf16; lse, lse_other: [rows, q_heads] f32. */
    enum tca_status (*attention_merge)(struct kernel_queue *queue, uint16_t *out, float *lse,
                                       const uint16_t *out_other, const float *lse_other, int rows,
                                       const struct attention_shape *shape);

    /* How much of their attention mass queries keep: masses_out[g] = {sum, least} over the rows and
     * the group's query heads of min(1, exp(lse_kept - lse)). lse: over all causal keys, lse_kept:
     * over the kept ones, both [rows, q_heads] f32; -inf in lse counts as 1.
     * masses_out: [kv_heads, 2] f32. */
    enum tca_status (*kept_masses)(struct kernel_queue *queue, float *masses_out,
                                   const float *lse_kept, const float *lse, int rows,
                                   const struct attention_shape *shape);

    /* --- Stripes (docs/decisions/0009-stripes.md): a rank then has one KV head. --- */

    /* Gathered values of all stripes back into the order of the sequence: out[i], i < total, is
     * value (i / unit / stripes) * unit + i % unit of stripe (i / unit) % stripes. What is gathered
     * beyond that is not read. gathered: [stripes, stride] f32, stripes->stripe does not matter;
     * out: [total] f32, apart. */
    enum tca_status (*interleave)(struct kernel_queue *queue, float *out, const float *gathered,
                                  const struct kernel_stripes *stripes, int64_t stride,
                                  int64_t total);

    /* Which of the kept tokens this stripe holds, and where: token i of a unit of its own becomes
     * row (i / unit / stripes) * unit + i % unit, in the order of `kept`, which rises. kept:
     * [count] i32 and count: [1] i32 on the device; picked_out: [room for count] i32, apart;
     * count_out: [1]. */
    enum tca_status (*pick)(struct kernel_queue *queue, int32_t *picked_out, int32_t *count_out,
                            const int32_t *kept, const int32_t *count,
                            const struct kernel_stripes *stripes);
};

const struct kernel_backend *kernel_backend_cpu(void);

/* NULL when this build or this machine has no usable GPU of that index;
 * `error` (or NULL) says why. */
const struct kernel_backend *kernel_backend_cuda(int device, struct tca_error *error);

#endif
