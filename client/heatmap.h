/* Which parts of a document each layer and KV head kept for a question, as a picture: one row per
 * (layer, KV head), 256 columns from the document's start to its end, coloured by the share of the
 * column's tokens that the head keeps. Pure: no I/O.
 *
 * Column j holds the tokens i of N with floor(256 i / N) = j: N / 256 of them, rounded either way,
 * none where N < 256 leaves a column empty. */
#ifndef CLIENT_HEATMAP_H
#define CLIENT_HEATMAP_H

#include "base/bytes.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { HEATMAP_COLUMNS = 256, HEATMAP_ROWS_MAX = 65536 };

struct heatmap_row {
    uint32_t layer;
    uint32_t kv_head;
    uint32_t kept[HEATMAP_COLUMNS]; /* tokens */
};

/* All zeros at first; free by heatmap_free. */
struct heatmap {
    uint64_t document_tokens;
    struct heatmap_row *rows; /* by layer, then head; owned */
    size_t count;
    size_t capacity;
};

struct heatmap_caption {
    const void *question; /* any bytes; shown as one short line */
    size_t question_bytes;
    const char *document_id;
    const char *rule; /* NULL: not named */
};

/* Add a row, or replace that of the same head: an answer may select again. TCA_ERR_INVALID: not 256
 * columns; TCA_ERR_RANGE: too many rows. */
enum tca_status heatmap_add(struct heatmap *map, uint32_t layer, uint32_t kv_head,
                            const uint32_t *kept, size_t columns, struct tca_error *error);
void heatmap_free(struct heatmap *map);

/* Append an SVG document that needs nothing else, with a background of its own. */
enum tca_status heatmap_draw(const struct heatmap *map, const struct heatmap_caption *caption,
                             struct bytes *svg_out);

#endif
