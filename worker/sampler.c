#include "worker/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float value; /* logit, later its share of the remaining probability */
    int32_t id;
};

struct sampler {
    int vocab;
    float *scores;                /* owned [vocab]: logits after penalty and temperature */
    double lse;                   /* of the scores, where top-p alone cuts them */
    uint8_t *is_seen;             /* owned [vocab]: all zeros between calls */
    struct candidate *candidates; /* owned [vocab] */
};

enum tca_status sampler_create(int vocab, struct sampler **sampler_out)
{
    struct sampler *sampler = calloc(1, sizeof(*sampler));

    if (sampler == NULL)
        return TCA_ERR_NO_MEMORY;
    sampler->vocab = vocab;
    sampler->scores = calloc((size_t)vocab, sizeof(*sampler->scores));
    sampler->is_seen = calloc((size_t)vocab, sizeof(*sampler->is_seen));
    sampler->candidates = calloc((size_t)vocab, sizeof(*sampler->candidates));
    if (sampler->scores == NULL || sampler->is_seen == NULL || sampler->candidates == NULL) {
        sampler_destroy(sampler);
        return TCA_ERR_NO_MEMORY;
    }
    *sampler_out = sampler;
    return TCA_OK;
}

void sampler_destroy(struct sampler *sampler)
{
    if (sampler == NULL)
        return;
    free(sampler->scores);
    free(sampler->is_seen);
    free(sampler->candidates);
    free(sampler);
}

enum tca_status sampler_params_check(const struct sampler_params *params, struct tca_error *error)
{
    /* Written so that NaN fails. */
    if (!(params->temperature >= 0.0 && params->temperature <= 100.0))
        return tca_fail(error, TCA_ERR_INVALID, "temperature: %g is not in 0..100",
                        params->temperature);
    if (params->top_k < 0)
        return tca_fail(error, TCA_ERR_INVALID, "top_k: %d is negative", params->top_k);
    if (!(params->top_p > 0.0 && params->top_p <= 1.0))
        return tca_fail(error, TCA_ERR_INVALID, "top_p: %g is not in (0, 1]", params->top_p);
    if (!(params->min_p >= 0.0 && params->min_p <= 1.0))
        return tca_fail(error, TCA_ERR_INVALID, "min_p: %g is not in 0..1", params->min_p);
    if (!(params->repetition_penalty > 0.0 && params->repetition_penalty <= 100.0))
        return tca_fail(error, TCA_ERR_INVALID, "repetition_penalty: %g is not in (0, 100]",
                        params->repetition_penalty);
    if (params->logprobs < 0 || params->logprobs > SAMPLER_TOP_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "logprobs: %d is not in 0..%d", params->logprobs,
                        SAMPLER_TOP_MAX);
    return TCA_OK;
}

void sampler_random_seed(struct sampler_random *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t value = seed += 0x9e3779b97f4a7c15U;

        value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
        value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
        random->state[i] = value ^ (value >> 31);
    }
}

static uint64_t rotate_left(uint64_t value, int bits)
{
    return (value << bits) | (value >> (64 - bits));
}

double sampler_random_next(struct sampler_random *random)
{
    uint64_t *state = random->state;
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;

    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return (double)(result >> 11) * 0x1.0p-53;
}

int64_t sampler_random_below(struct sampler_random *random, int64_t end)
{
    return (int64_t)(sampler_random_next(random) * (double)end);
}

int sampler_candidates(const struct sampler_params *params)
{
    const int wanted = params->temperature > 0.0 ? params->top_k : 1;

    if (wanted == 0 || wanted > SAMPLER_CANDIDATES_MAX || params->repetition_penalty != 1.0)
        return 0;
    return wanted > params->logprobs ? wanted : params->logprobs;
}

/* a before b: larger value, then lower id. */
static bool is_better(const struct candidate *a, const struct candidate *b)
{
    return a->value > b->value || (a->value == b->value && a->id < b->id);
}

static int compare_candidates(const void *left, const void *right)
{
    return is_better(left, right) ? -1 : is_better(right, left);
}

static double log_sum_exp(const float *values, int count)
{
    float most = -INFINITY;
    double sum = 0.0;

    for (int i = 0; i < count; i++)
        most = values[i] > most ? values[i] : most;
    for (int i = 0; i < count; i++)
        sum += (double)expf(values[i] - most);
    return (double)most + log(sum);
}

/* Put the `wanted` best of `count` in front, in any order (quickselect). */
static void bring_forward(struct candidate *candidates, int count, int wanted)
{
    int first = 0, last = count - 1;

    while (first < last) {
        const struct candidate pivot = candidates[first + (last - first) / 2];
        int left = first, right = last;

        while (left <= right) {
            struct candidate other;

            while (is_better(&candidates[left], &pivot))
                left++;
            while (is_better(&pivot, &candidates[right]))
                right--;
            if (left > right)
                break;
            other = candidates[left];
            candidates[left++] = candidates[right];
            candidates[right--] = other;
        }
        if (wanted <= right + 1)
            last = right;
        else if (wanted > left)
            first = left;
        else
            return;
    }
}

/* The `count` best of a whole row, by insertion: count is small. */
static int best_of_row(const float *values, int vocab, int count, struct sampled_chance *best_out,
                       double lse)
{
    struct candidate best[SAMPLER_TOP_MAX];
    int found = 0;

    for (int32_t id = 0; id < vocab && count > 0; id++) {
        struct candidate next = {.value = values[id], .id = id};
        int place = found;

        if (found == count && !is_better(&next, &best[count - 1]))
            continue;
        found = found < count ? found + 1 : count;
        place = place < count ? place : count - 1;
        for (; place > 0 && is_better(&next, &best[place - 1]); place--)
            best[place] = best[place - 1];
        best[place] = next;
    }
    for (int i = 0; i < found; i++)
        best_out[i] = (struct sampled_chance){.id = best[i].id,
                                              .logprob = (float)((double)best[i].value - lse)};
    return found;
}

/* Hugging Face's rule: a positive score is divided, a negative one multiplied. */
static void penalise(struct sampler *sampler, double penalty, const int32_t *seen,
                     size_t seen_count)
{
    for (size_t i = 0; i < seen_count; i++) {
        int32_t id = seen[i];

        if (id < 0 || id >= sampler->vocab || sampler->is_seen[id])
            continue;
        sampler->is_seen[id] = 1;
        sampler->scores[id] =
            (float)(sampler->scores[id] < 0.0F ? (double)sampler->scores[id] * penalty
                                               : (double)sampler->scores[id] / penalty);
    }
    for (size_t i = 0; i < seen_count; i++)
        if (seen[i] >= 0 && seen[i] < sampler->vocab)
            sampler->is_seen[seen[i]] = 0;
}

/* Divide by the temperature. The best score becomes 0 first: a tiny temperature then sends the
 * others to -infinity instead of all of them to infinity. */
static void heat(float *scores_out, const float *scores, int count, double temperature)
{
    float most = -INFINITY;

    for (int i = 0; i < count; i++)
        most = scores[i] > most ? scores[i] : most;
    if (!isfinite(most))
        most = 0.0F;
    for (int i = 0; i < count; i++)
        scores_out[i] = isnan(scores[i])
                            ? -INFINITY
                            : (float)(((double)scores[i] - (double)most) / temperature);
}

static int32_t best_score(const struct sampler *sampler)
{
    int32_t best = 0;

    for (int32_t id = 1; id < sampler->vocab; id++)
        if (sampler->scores[id] > sampler->scores[best])
            best = id;
    return best;
}

/* All tokens that top-p or min-p could keep, best first: those too improbable for either are left
 * out before sorting, which changes nothing and saves most of the work. */
static int list_candidates(struct sampler *sampler, const struct sampler_params *params)
{
    float most = sampler->scores[best_score(sampler)];
    bool is_cut = params->top_p < 1.0 && params->top_k == 0;
    double least = -INFINITY;
    int count = 0;

    if (is_cut) { /* what lies below this sums to less than 1 - top_p */
        sampler->lse = log_sum_exp(sampler->scores, sampler->vocab);
        least = sampler->lse + log((1.0 - params->top_p) / sampler->vocab);
    }

    if (params->min_p > 0.0 && (double)most + log(params->min_p) - 1e-3 > least)
        least = (double)most + log(params->min_p) - 1e-3;
    for (int32_t id = 0; id < sampler->vocab; id++)
        if ((double)sampler->scores[id] >= least || sampler->scores[id] == most)
            sampler->candidates[count++] =
                (struct candidate){.value = sampler->scores[id], .id = id};
    if (params->top_k > 0 && params->top_k < count) {
        bring_forward(sampler->candidates, count, params->top_k);
        count = params->top_k;
    }
    if (params->top_k > 0 || params->top_p < 1.0 || params->min_p > 0.0)
        qsort(sampler->candidates, (size_t)count, sizeof(*sampler->candidates), compare_candidates);
    return count;
}

/* Draw from those candidates that pass every filter; at least the best one does. */
static int32_t draw(struct sampler *sampler, const struct sampler_params *params, int count,
                    double random)
{
    struct candidate *candidates = sampler->candidates;
    bool is_filtered = params->top_p < 1.0 || params->min_p > 0.0;
    double total = 0.0;
    double kept = 0.0;
    float most;
    int used;

    most = candidates[0].value;
    for (int i = 1; i < count; i++)
        most = candidates[i].value > most ? candidates[i].value : most;
    for (int i = 0; i < count; i++) {
        candidates[i].value = expf(candidates[i].value - most);
        total += (double)candidates[i].value;
    }
    /* With top-p, `total` lacks the improbable tokens left out above: at most a share of 1 - top_p,
     * spread so thin that the nucleus ends before any of them. */
    if (params->top_p < 1.0 && params->top_k == 0)
        total = exp(sampler->lse - (double)most);
    for (used = 0; used < count; used++) {
        if (used > 0 && is_filtered &&
            ((params->top_p < 1.0 && kept >= params->top_p * total) ||
             (double)candidates[used].value < params->min_p))
            break;
        kept += (double)candidates[used].value;
    }
    random *= kept;
    for (int i = 0; i < used - 1; i++) {
        random -= (double)candidates[i].value;
        if (random < 0.0)
            return candidates[i].id;
    }
    return candidates[used - 1].id;
}

/* One of the top-k, which are all in `row`: its place there. */
static int draw_from_top(struct sampler *sampler, const struct sampler_params *params,
                         const struct logits_row *row, double random)
{
    const int count = row->top < params->top_k ? row->top : params->top_k;
    int32_t id;
    int place = 0;

    heat(sampler->scores, row->top_value, count, params->temperature);
    for (int i = 0; i < count; i++)
        sampler->candidates[i] =
            (struct candidate){.value = sampler->scores[i], .id = row->top_id[i]};
    qsort(sampler->candidates, (size_t)count, sizeof(*sampler->candidates), compare_candidates);
    id = draw(sampler, params, count, random);
    while (row->top_id[place] != id)
        place++;
    return place;
}

static struct sampled_token choose_from_top(struct sampler *sampler,
                                            const struct sampler_params *params,
                                            const struct logits_row *row,
                                            struct sampler_random *random)
{
    const int place = params->temperature > 0.0
                          ? draw_from_top(sampler, params, row, sampler_random_next(random))
                          : 0;
    struct sampled_token token = {
        .chosen = {.id = row->top_id[place], .logprob = row->top_value[place] - row->lse}};

    for (int i = 0; i < params->logprobs && i < row->top; i++)
        token.best[token.top++] =
            (struct sampled_chance){.id = row->top_id[i], .logprob = row->top_value[i] - row->lse};
    return token;
}

struct sampled_token sampler_choose(struct sampler *sampler, const struct sampler_params *params,
                                    const struct logits_row *row, const int32_t *seen,
                                    size_t seen_count, struct sampler_random *random)
{
    struct sampled_token token = {0};
    double lse;

    if (row->full == NULL)
        return choose_from_top(sampler, params, row, random);
    lse = log_sum_exp(row->full, sampler->vocab);
    token.top = best_of_row(row->full, sampler->vocab, params->logprobs, token.best, lse);
    memcpy(sampler->scores, row->full, (size_t)sampler->vocab * sizeof(*sampler->scores));
    if (params->repetition_penalty != 1.0)
        penalise(sampler, params->repetition_penalty, seen, seen_count);
    if (params->temperature > 0.0) {
        heat(sampler->scores, sampler->scores, sampler->vocab, params->temperature);
        token.chosen.id =
            draw(sampler, params, list_candidates(sampler, params), sampler_random_next(random));
    } else {
        token.chosen.id = best_score(sampler);
    }
    token.chosen.logprob = (float)((double)row->full[token.chosen.id] - lse);
    return token;
}
