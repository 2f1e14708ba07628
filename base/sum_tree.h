/* In which order the parts of a sum are added: one binary tree over parts 0 .. n - 1, however they
 * are spread over threads and ranks. Float addition is not associative; with one order, a matrix
 * product that is cut into parts gives the same bits on one rank as on several that hold whole
 * subtrees of it (1, 2 or 4 of 4 parts, 2 + 1 + 1, 2 + 1 of 3, ...).
 * See docs/decisions/0005-one-order-of-addition.md. */
#ifndef BASE_SUM_TREE_H
#define BASE_SUM_TREE_H

/* How many of `parts` (at least 2) the left subtree holds: the largest power of two below. */
static inline int sum_tree_left(int parts)
{
    int left = 1;

    while (left * 2 < parts)
        left *= 2;
    return left;
}

/* Intermediate sums that are alive at once beside the result. */
static inline int sum_tree_depth(int parts)
{
    int depth = 0;

    while ((1 << depth) < parts)
        depth++;
    return depth;
}

#endif
