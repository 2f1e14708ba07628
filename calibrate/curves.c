#include "calibrate/curves.h"

#include "kernels/select.h"

#include <math.h>
#include <stdlib.h>

const float curve_share[CURVE_SHARES] = {0.0025F, 0.005F, 0.01F, 0.015F, 0.02F, 0.03F, 0.05F, 0.07F,
                                         0.1F,    0.15F,  0.2F,  0.3F,   0.4F,  0.55F, 0.75F, 1.0F};

/* Of the blocks between sinks and window. Without 1: a window of that size is `dense`. */
static const double tca_keeps[] = {0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8};
static const double tca_sigmas[] = {0.5, 1.0, 2.0};

enum { TCA_SIGMAS = sizeof(tca_sigmas) / sizeof(*tca_sigmas) };
_Static_assert((int)(sizeof(tca_keeps) / sizeof(*tca_keeps)) * TCA_SIGMAS == CURVE_TCA_CANDIDATES,
               "the grid of (mu, sigma)");

int64_t curve_budget(int share, int64_t tokens, int64_t window)
{
    const int64_t least = SELECT_BLOCK_TOKENS + window;
    const int64_t wanted = share == CURVE_SHARES - 1
                               ? tokens
                               : (int64_t)ceil((double)curve_share[share] * (double)tokens);
    const int64_t budget = wanted > least ? wanted : least;

    return budget < tokens ? budget : tokens;
}

struct profile_tca curve_tca_candidate(int candidate, double *keep_out)
{
    const double keep = tca_keeps[candidate / TCA_SIGMAS];
    const double sigma = tca_sigmas[candidate % TCA_SIGMAS];

    if (keep_out != NULL)
        *keep_out = keep;
    return (struct profile_tca){.mu = (float)select_tca_mu(keep, sigma), .sigma = (float)sigma};
}

int curve_points(enum curve_source source)
{
    return source == CURVE_TCA_TEXT ? CURVE_TCA_CANDIDATES : CURVE_SHARES;
}

/* Sums of one source, of all before it. */
static size_t source_sums(const struct curves *curves, int source)
{
    return (size_t)curves->lengths * (size_t)curves->layers * (size_t)curves->kv_heads *
           (size_t)curve_points((enum curve_source)source);
}

enum tca_status curves_init(struct curves *curves, int lengths, int layers, int kv_heads)
{
    *curves = (struct curves){.lengths = lengths, .layers = layers, .kv_heads = kv_heads};
    for (int source = 0; source < CURVE_SOURCES; source++)
        curves->count += source_sums(curves, source);
    curves->sums = calloc(curves->count, sizeof(*curves->sums));
    return curves->sums == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
}

void curves_deinit(struct curves *curves)
{
    free(curves->sums);
    *curves = (struct curves){0};
}

double *curves_at(const struct curves *curves, enum curve_source source, int length, int layer,
                  int head)
{
    double *sums = curves->sums;

    for (int before = 0; before < (int)source; before++)
        sums += source_sums(curves, before);
    return sums +
           (((size_t)length * (size_t)curves->layers + (size_t)layer) * (size_t)curves->kv_heads +
            (size_t)head) *
               (size_t)curve_points(source);
}

static double mean_at(const struct curves *curves, enum curve_source source, int length, int layer,
                      int head, int point)
{
    return curves_at(curves, source, length, layer, head)[point] /
           (double)curves->samples[source][length];
}

static double question_mass(const struct curves *curves, int length, int layer, int head, int point)
{
    const double text = mean_at(curves, CURVE_POOLED_TEXT, length, layer, head, point);

    if (curves->samples[CURVE_POOLED_QUESTION][length] == 0)
        return text;
    return (text + mean_at(curves, CURVE_POOLED_QUESTION, length, layer, head, point)) / 2.0;
}

static float round_mass(double mass)
{
    return (float)(round(fmin(mass, 1.0) * 1e4) / 1e4);
}

/* The least mass of a candidate at any length. */
static double tca_mass(const struct curves *curves, int layer, int head, int candidate)
{
    double least = 1.0;

    for (int length = 0; length < curves->lengths; length++)
        least = fmin(least, mean_at(curves, CURVE_TCA_TEXT, length, layer, head, candidate));
    return least;
}

/* Among equally sparse ones the one that keeps most; all blocks whole when none reaches it. */
static struct profile_tca choose_tca(const struct curves *curves, int layer, int head,
                                     double threshold)
{
    double chosen_keep = 1.0, chosen_mass = 1.0, keep;
    struct profile_tca chosen = {.mu = (float)select_tca_mu(1.0, 1.0), .sigma = 1.0F};

    for (int i = 0; i < CURVE_TCA_CANDIDATES; i++) {
        const struct profile_tca candidate = curve_tca_candidate(i, &keep);
        const double mass = tca_mass(curves, layer, head, i);

        if (mass < threshold || keep > chosen_keep || (keep == chosen_keep && mass <= chosen_mass))
            continue;
        chosen = candidate;
        chosen_keep = keep;
        chosen_mass = mass;
    }
    return chosen;
}

void curves_fill(const struct curves *curves, double threshold, struct profile *profile)
{
    float *prefill = profile->mass[PROFILE_PREFILL];
    float *question = profile->mass[PROFILE_QUESTION];

    profile->points = CURVE_SHARES;
    for (int i = 0; i < CURVE_SHARES; i++)
        profile->share[i] = curve_share[i];
    for (int length = 0; length < curves->lengths; length++)
        for (int layer = 0; layer < curves->layers; layer++)
            for (int head = 0; head < curves->kv_heads; head++)
                for (int i = 0; i < CURVE_SHARES; i++) {
                    *prefill++ =
                        round_mass(mean_at(curves, CURVE_BLOCK_TEXT, length, layer, head, i));
                    *question++ = round_mass(question_mass(curves, length, layer, head, i));
                }
    for (int layer = 0; layer < curves->layers; layer++)
        for (int head = 0; head < curves->kv_heads; head++)
            profile->tca[layer * curves->kv_heads + head] =
                choose_tca(curves, layer, head, threshold);
}
