/* A matrix [rows, cols] of bf16 as the CPU's matrix products want it.
 *
 * WEIGHT_ROWS: row-major. WEIGHT_BLOCKS: oneDNN's BA16a64b2a of the transposed matrix, padded
 * with zeros, [rows / 64, cols / 2, 64, 2]: 64 outputs beside each other in pairs of inputs, the
 * order in which vdpbf16ps eats them. Blocks of 64 rows follow each other, so that a run of them
 * is a matrix of its own. A matrix of several parts is one such matrix a part, one after another.
 * Both layouts serve `embed`. */
#ifndef KERNELS_CPU_WEIGHT_H
#define KERNELS_CPU_WEIGHT_H

#include "kernels/backend.h"

#include <stddef.h>
#include <stdint.h>

enum { WEIGHT_BLOCK_ROWS = 64, WEIGHT_BLOCK_COLS = 32 };

enum weight_layout { WEIGHT_ROWS, WEIGHT_BLOCKS };

/* A run of inputs whose product is a part of the sum (base/sum_tree.h). */
struct weight_part {
    int first, cols;
    size_t offset; /* of its blocks in `data`; WEIGHT_ROWS has whole rows and no use for it */
};

struct kernel_weight {
    enum weight_layout layout;
    int rows;                 /* outputs */
    int cols;                 /* inputs */
    int parts;                /* of the sum over the inputs, at least 1 */
    struct weight_part *part; /* owned [parts] */
    int widths;               /* different numbers of inputs that parts have */
    uint16_t *data;           /* owned */
    size_t bytes;
};

/* Where row `row` (a multiple of WEIGHT_BLOCK_ROWS) of one part of WEIGHT_BLOCKS starts. */
const uint16_t *weight_block(const struct kernel_weight *weight, const struct weight_part *part,
                             int row);

#endif
