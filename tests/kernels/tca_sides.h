/* A case of tests/support/tca_case.h on the device of a side. */
#ifndef TESTS_KERNELS_TCA_SIDES_H
#define TESTS_KERNELS_TCA_SIDES_H

#include "tests/support/tca_case.h"

#include "tests/kernels/sides.h"

enum { TCA_HEADS_MOST = 8 };

/* How the heads' earlier rows lie. */
enum tca_layout { TCA_BY_STRIDE, TCA_RAGGED };

struct tca_device {
    uint16_t *q, *k, *v;
    size_t q_bytes, kv_bytes;
    int32_t *rows; /* NULL unless ragged */
    int64_t *offsets;
    struct attention_segment earlier, own;
};

/* Rows of a head when ragged: none, few, all, .. */
static inline void tca_ragged_rows(const struct tca_tensors *t, int32_t rows[TCA_HEADS_MOST])
{
    for (int head = 0; head < t->shape.kv_heads; head++)
        rows[head] = (int32_t)(t->earlier.rows * ((head + 2) % 3) / 2);
}

static inline void tca_put(const struct side *side, const struct tca_tensors *t,
                           enum tca_layout layout, struct tca_device *d)
{
    size_t dim = (size_t)t->shape.head_dim;
    int32_t rows[TCA_HEADS_MOST] = {0};
    int64_t offsets[TCA_HEADS_MOST] = {0};

    *d = (struct tca_device){
        .q_bytes = (size_t)(t->queries * t->shape.q_heads) * dim * sizeof(*d->q),
        .kv_bytes = (size_t)t->earlier.head_stride * (size_t)t->shape.kv_heads * sizeof(*d->k),
        .earlier = t->earlier,
        .own = t->own};
    d->q = put(side, t->q, d->q_bytes);
    d->k = put(side, t->k, d->kv_bytes);
    d->v = put(side, t->v, d->kv_bytes);
    d->earlier.k = d->k;
    d->earlier.v = d->v;
    d->own.k = d->k + (t->own.k - t->k);
    d->own.v = d->v + (t->own.v - t->v);
    if (layout == TCA_BY_STRIDE)
        return;
    /* The last head's rows first. */
    tca_ragged_rows(t, rows);
    for (int head = 0; head < t->shape.kv_heads; head++)
        offsets[head] = (t->shape.kv_heads - 1 - head) * t->earlier.head_stride;
    d->rows = put(side, rows, sizeof(rows));
    d->offsets = put(side, offsets, sizeof(offsets));
    d->earlier.head_stride = -1;
    d->earlier.rows_per_head = d->rows;
    d->earlier.head_offsets = d->offsets;
}

static inline void tca_drop(const struct side *side, struct tca_device *d)
{
    drop(side, d->q, d->q_bytes);
    drop(side, d->k, d->kv_bytes);
    drop(side, d->v, d->kv_bytes);
    if (d->rows != NULL)
        drop(side, d->rows, TCA_HEADS_MOST * sizeof(*d->rows));
    if (d->offsets != NULL)
        drop(side, d->offsets, TCA_HEADS_MOST * sizeof(*d->offsets));
}

/* Near, or the same infinity. */
static inline void assert_near_or_infinite(const float *want, const float *got, size_t count,
                                           double absolute, double relative, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        double value = (double)want[i];

        if (isinf(want[i]))
            assert_true(got[i] == want[i]);
        else
            assert_close(got + i, &value, 1, absolute, relative, what);
    }
}

#endif
