#include "kernels/select.h"

#include "base/min.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    struct select_method method;
} methods[] = {
    {"dense", {.rule = SELECT_DENSE}},
    {"window", {.rule = SELECT_WINDOW}},
    {"block", {.rule = SELECT_BLOCK}},
    {"pooled", {.rule = SELECT_POOLED}},
    {"tca", {SELECT_TCA, SELECT_REDUNDANCY_SIMPSON, .observes_last = true}},
    {"tca-simpson", {SELECT_TCA, SELECT_REDUNDANCY_SIMPSON, .observes_last = false}},
    {"tca-mass", {SELECT_TCA, SELECT_REDUNDANCY_MASS, .observes_last = false}},
};

bool select_method_parse(const char *name, size_t bytes, struct select_method *method_out)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        if (strlen(methods[i].name) != bytes || memcmp(methods[i].name, name, bytes) != 0)
            continue;
        *method_out = methods[i].method;
        return true;
    }
    return false;
}

bool select_needs_token_scores(const struct select_method *method)
{
    return method->rule == SELECT_POOLED || method->rule == SELECT_TCA;
}

bool select_needs_block_masses(const struct select_method *method)
{
    return method->rule == SELECT_BLOCK ||
           (method->rule == SELECT_TCA && method->redundancy == SELECT_REDUNDANCY_MASS);
}

int64_t select_blocks(int64_t tokens)
{
    return (tokens + SELECT_BLOCK_TOKENS - 1) / SELECT_BLOCK_TOKENS;
}

int64_t select_budget(double keep, int64_t tokens, int64_t window)
{
    const int64_t least = SELECT_BLOCK_TOKENS + window + SELECT_LEAST_FREE;
    const int64_t wanted = keep >= 1.0 ? tokens : (int64_t)(keep * (double)tokens);

    return min_i64(tokens, wanted > least ? wanted : least);
}

/* Scores are non-negative, so their bits order as they do; NaN and negatives become 0. */
static uint32_t score_key(float score)
{
    uint32_t bits;

    if (!(score > 0.0f))
        return 0;
    memcpy(&bits, &score, sizeof(bits));
    return bits;
}

/* The middle part, between sinks and window: what the rules choose from. */
struct free_range {
    int64_t first, last; /* [first, last) */
};

static struct free_range free_tokens(const struct select_input *input)
{
    const int64_t first = min_i64(SELECT_BLOCK_TOKENS, input->tokens);
    const int64_t last = input->tokens - min_i64(input->window, input->tokens);

    return (struct free_range){.first = first, .last = last < first ? first : last};
}

/* The key that the count-th largest of keys[n] has, and how many keys equal to it are still to be
 * taken; 0 < count <= n. Radix select, a byte a pass. */
static uint32_t select_threshold(const uint32_t *keys, int64_t n, int64_t count, int64_t *ties_out)
{
    uint32_t prefix = 0, mask = 0;

    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t histogram[256] = {0};
        int digit = 255;

        for (int64_t i = 0; i < n; i++)
            if ((keys[i] & mask) == prefix)
                histogram[keys[i] >> shift & 0xff]++;
        while (histogram[digit] < count)
            count -= histogram[digit--];
        prefix |= (uint32_t)digit << shift;
        mask |= UINT32_C(0xff) << shift;
    }
    *ties_out = count;
    return prefix;
}

/* Mark the `count` largest of keys[n], ties to the lowest index. */
static void mark_largest(const uint32_t *keys, int64_t n, int64_t count, uint8_t *marks)
{
    int64_t ties;
    uint32_t threshold;

    if (count <= 0)
        return;
    if (count >= n) {
        memset(marks, 1, (size_t)n);
        return;
    }
    threshold = select_threshold(keys, n, count, &ties);
    for (int64_t i = 0; i < n; i++) {
        if (keys[i] > threshold) {
            marks[i] = 1;
        } else if (keys[i] == threshold && ties > 0) {
            marks[i] = 1;
            ties--;
        }
    }
}

void select_pool(const float *scores, int64_t tokens, float *out)
{
    /* van Herk: running maxima forwards and backwards within segments of the window's width. */
    enum { WIDTH = 2 * SELECT_POOL_RADIUS + 1 };
    float forward[2 * WIDTH], backward[WIDTH];

    for (int64_t start = 0; start < tokens; start += WIDTH) {
        /* The windows centred in [start, start + WIDTH) span positions start - 16 .. start + 48:
         * the first WIDTH of them from the left edge, the rest to the right of it. */
        const int64_t left = start - SELECT_POOL_RADIUS;
        float best = 0.0f;

        for (int i = WIDTH - 1; i >= 0; i--) {
            const int64_t at = left + i;
            const float score = at >= 0 && at < tokens ? scores[at] : 0.0f;

            best = score > best ? score : best;
            backward[i] = best;
        }
        best = 0.0f;
        for (int i = 0; i < WIDTH; i++) {
            const int64_t at = left + WIDTH + i;
            const float score = at < tokens ? scores[at] : 0.0f;

            best = score > best ? score : best;
            forward[i] = best;
        }
        for (int i = 0; i < WIDTH && start + i < tokens; i++) {
            const float right = i == 0 ? 0.0f : forward[i - 1];

            out[start + i] = backward[i] > right ? backward[i] : right;
        }
    }
}

static float block_simpson(const float *scores, int64_t count)
{
    double sum = 0.0, squares = 0.0;

    for (int64_t i = 0; i < count; i++) {
        const double score = scores[i] > 0.0f ? (double)scores[i] : 0.0;

        sum += score;
        squares += score * score;
    }
    return sum > 0.0 ? (float)(squares / (sum * sum)) : 1.0f;
}

void select_simpson(const float *scores, int64_t tokens, float *out)
{
    const int64_t blocks = select_blocks(tokens);

    for (int64_t j = 0; j < blocks; j++) {
        const int64_t first = j * SELECT_BLOCK_TOKENS;

        out[j] = block_simpson(scores + first, min_i64(SELECT_BLOCK_TOKENS, tokens - first));
    }
}

void select_tca_shares(double mu, double sigma, float shares_out[SELECT_TCA_SIZES])
{
    double weights[SELECT_TCA_SIZES], sum = 0.0, nearest = INFINITY;

    for (int k = 0; k < SELECT_TCA_SIZES; k++)
        nearest = fmin(nearest, (k - mu) * (k - mu));
    for (int k = 0; k < SELECT_TCA_SIZES; k++) {
        /* Relative to the nearest size, so that a small sigma cannot underflow all of them. */
        weights[k] = exp(-((k - mu) * (k - mu) - nearest) / (2.0 * sigma * sigma));
        sum += weights[k];
    }
    for (int k = 0; k < SELECT_TCA_SIZES; k++)
        shares_out[k] = (float)(weights[k] / sum);
}

static double kept_share(double mu, double sigma)
{
    float shares[SELECT_TCA_SIZES];
    double kept = 0.0;

    select_tca_shares(mu, sigma, shares);
    for (int k = 0; k < SELECT_TCA_SIZES; k++)
        kept += (double)shares[k] * (double)(1 << k) / SELECT_BLOCK_TOKENS;
    return kept;
}

double select_tca_mu(double keep, double sigma)
{
    /* Far outside the sizes all blocks have the smallest or the largest one. */
    double low = -64.0, high = 64.0;

    for (int i = 0; i < 64; i++) {
        const double middle = (low + high) / 2.0;

        if (kept_share(middle, sigma) < keep)
            low = middle;
        else
            high = middle;
    }
    return low;
}

struct scratch {
    uint8_t *marks; /* [tokens] 1: kept */
    uint32_t *keys; /* [tokens] */
    float *scores;  /* [tokens] pooled scores, or [blocks] of tca */
    int32_t *order; /* [blocks] */
};

static size_t rounded(int64_t count, size_t size)
{
    return ((size_t)count * size + 7) / 8 * 8;
}

size_t select_scratch_bytes(int64_t tokens)
{
    return rounded(tokens, 4) * 2 + rounded(select_blocks(tokens), 4) * 2 + rounded(tokens, 1);
}

static struct scratch scratch_lay(void *memory, int64_t tokens)
{
    char *at = memory;
    struct scratch scratch;

    scratch.keys = (uint32_t *)(void *)at;
    at += rounded(tokens, 4);
    scratch.scores = (float *)(void *)at;
    at += rounded(tokens, 4);
    scratch.order = (int32_t *)(void *)at;
    at += rounded(select_blocks(tokens), 4) * 2;
    scratch.marks = (uint8_t *)at;
    return scratch;
}

static void run_pooled(const struct select_input *input, int64_t budget, struct scratch *scratch)
{
    const struct free_range range = free_tokens(input);
    const int64_t always = input->tokens - (range.last - range.first);

    select_pool(input->token_scores, input->tokens, scratch->scores);
    for (int64_t i = range.first; i < range.last; i++)
        scratch->keys[i] = score_key(scratch->scores[i]);
    mark_largest(scratch->keys + range.first, range.last - range.first, budget - always,
                 scratch->marks + range.first);
}

/* Blocks that begin in the free range; the last may reach into the window, which costs nothing. */
static void run_block(const struct select_input *input, int64_t budget, struct scratch *scratch)
{
    const struct free_range range = free_tokens(input);
    const int64_t first = 1, blocks = select_blocks(range.last);
    const int64_t always = input->tokens - (range.last - range.first);
    /* Each is charged a whole block, so that a larger budget always keeps a superset. */
    const int64_t count = (budget - always) / SELECT_BLOCK_TOKENS;
    uint8_t *marks = (uint8_t *)scratch->order;

    if (blocks <= first)
        return;
    memset(marks, 0, (size_t)blocks);
    for (int64_t j = first; j < blocks; j++)
        scratch->keys[j] = score_key(input->block_masses[j]);
    mark_largest(scratch->keys + first, blocks - first, count, marks + first);
    for (int64_t j = first; j < blocks; j++) {
        const int64_t start = j * SELECT_BLOCK_TOKENS;

        if (marks[j])
            memset(scratch->marks + start, 1,
                   (size_t)min_i64(SELECT_BLOCK_TOKENS, input->tokens - start));
    }
}

static void run_window(const struct select_input *input, int64_t budget, struct scratch *scratch)
{
    const int64_t sinks = min_i64(SELECT_BLOCK_TOKENS, input->tokens);
    const int64_t last = budget - sinks;

    memset(scratch->marks + (input->tokens - last), 1, (size_t)last);
}

/* Order blocks [first, last) by rising key, ties to the lowest: LSD radix sort, 16 bits a pass. */
static void order_blocks(const uint32_t *keys, int64_t first, int64_t last, int32_t *order,
                         int32_t *spare)
{
    int32_t *from = order, *to = spare;

    for (int64_t j = first; j < last; j++)
        from[j - first] = (int32_t)j;
    for (int shift = 0; shift < 32; shift += 8) {
        int64_t start[257] = {0};
        int32_t *swap;

        for (int64_t i = 0; i < last - first; i++)
            start[(keys[from[i]] >> shift & 0xff) + 1]++;
        for (int digit = 0; digit < 256; digit++)
            start[digit + 1] += start[digit];
        for (int64_t i = 0; i < last - first; i++)
            to[start[keys[from[i]] >> shift & 0xff]++] = from[i];
        swap = from;
        from = to;
        to = swap;
    }
}

/* Keep the `count` largest scores of one block. */
static void keep_in_block(const struct select_input *input, int64_t block, int64_t count,
                          uint8_t *marks)
{
    const int64_t first = block * SELECT_BLOCK_TOKENS;
    const int64_t tokens = min_i64(SELECT_BLOCK_TOKENS, input->tokens - first);
    uint32_t keys[SELECT_BLOCK_TOKENS];

    for (int64_t i = 0; i < tokens; i++)
        keys[i] = score_key(input->token_scores[first + i]);
    mark_largest(keys, tokens, count, marks + first);
}

/* Blocks from few to many kept tokens: the first share keeps 1 token a block, the next 2, ... .
 * The most valuable blocks are last, so the budget is spent from the end. */
static void run_tca(const struct select_input *input, int64_t budget, struct scratch *scratch)
{
    const struct free_range range = free_tokens(input);
    const int64_t first = 1, last = select_blocks(range.last), blocks = last - first;
    int64_t left = budget - (input->tokens - (range.last - range.first));
    int size = SELECT_TCA_SIZES - 1;
    double share = (double)input->tca_shares[size];

    if (blocks <= 0)
        return;
    if (input->redundancy == SELECT_REDUNDANCY_SIMPSON)
        select_simpson(input->token_scores, input->tokens, scratch->scores);
    for (int64_t j = first; j < last; j++)
        /* Most redundant first: the inverted key makes the largest index the smallest. */
        scratch->keys[j] = input->redundancy == SELECT_REDUNDANCY_SIMPSON
                               ? ~score_key(scratch->scores[j])
                               : score_key(input->block_masses[j]);
    order_blocks(scratch->keys, first, last, scratch->order, scratch->order + last);
    for (int64_t i = 0; i < blocks && left > 0; i++) {
        while (size > 0 && (double)i + 0.5 > share * (double)blocks)
            share += (double)input->tca_shares[--size];
        const int64_t count = min_i64((int64_t)1 << size, left);

        keep_in_block(input, scratch->order[blocks - 1 - i], count, scratch->marks);
        left -= count;
    }
}

static int64_t list_marked(const uint8_t *marks, int64_t tokens, int32_t *kept_out)
{
    int64_t count = 0;

    for (int64_t i = 0; i < tokens; i++)
        if (marks[i])
            kept_out[count++] = (int32_t)i;
    return count;
}

enum tca_status select_run(enum select_rule rule, const struct select_input *input, int64_t budget,
                           void *scratch_memory, int32_t *kept_out, int64_t *count_out)
{
    static void (*const runs[SELECT_RULE_COUNT])(const struct select_input *, int64_t,
                                                 struct scratch *) = {
        [SELECT_WINDOW] = run_window,
        [SELECT_BLOCK] = run_block,
        [SELECT_POOLED] = run_pooled,
        [SELECT_TCA] = run_tca,
    };
    const struct free_range range = free_tokens(input);
    struct scratch scratch = scratch_lay(scratch_memory, input->tokens);

    if (budget < input->tokens && budget < input->tokens - (range.last - range.first))
        return TCA_ERR_INVALID;
    memset(scratch.marks, 0, (size_t)input->tokens);
    memset(scratch.marks, 1, (size_t)range.first);
    memset(scratch.marks + range.last, 1, (size_t)(input->tokens - range.last));
    if (rule == SELECT_DENSE || budget >= input->tokens)
        memset(scratch.marks, 1, (size_t)input->tokens);
    else
        runs[rule](input, budget, &scratch);
    *count_out = list_marked(scratch.marks, input->tokens, kept_out);
    return TCA_OK;
}
