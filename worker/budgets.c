#include "worker/budgets.h"

#include "kernels/select.h"

#include <math.h>
#include <stdlib.h>

/* A stretch of one head's curve over which mass rises evenly. */
struct stretch {
    double slope;      /* mass per share */
    double from, upto; /* shares */
    int head;
};

static int steepest_first(const void *a, const void *b)
{
    const struct stretch *x = a, *y = b;

    if (x->slope != y->slope)
        return x->slope > y->slope ? -1 : 1;
    if (x->head != y->head)
        return x->head < y->head ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* Corners of the concave hull over (0, 0) and the curve's points: on it, spending where the slope
 * is largest is spending well. Returns their count; shares and masses: [points + 1]. */
static int concave_hull(const struct profile *profile, const float *curve, double *shares,
                        double *masses)
{
    int corners = 1;

    shares[0] = masses[0] = 0.0;
    for (int i = 0; i < profile->points; i++) {
        const double share = (double)profile->share[i], mass = (double)curve[i];

        while (corners > 1 &&
               (masses[corners - 1] - masses[corners - 2]) * (share - shares[corners - 1]) <=
                   (mass - masses[corners - 1]) * (shares[corners - 1] - shares[corners - 2]))
            corners--;
        shares[corners] = share;
        masses[corners++] = mass;
    }
    return corners;
}

/* The stretches of one head's hull beyond its first share. */
static int add_stretches(const struct profile *profile, const float *curve, int head, double start,
                         struct stretch *stretches)
{
    double shares[PROFILE_POINTS_MAX + 1], masses[PROFILE_POINTS_MAX + 1];
    const int corners = concave_hull(profile, curve, shares, masses);
    int count = 0;

    for (int i = 1; i < corners; i++) {
        if (shares[i] <= start)
            continue;
        stretches[count++] =
            (struct stretch){.slope = (masses[i] - masses[i - 1]) / (shares[i] - shares[i - 1]),
                             .from = fmax(shares[i - 1], start),
                             .upto = shares[i],
                             .head = head};
    }
    return count;
}

static int collect(const struct profile *profile, const struct budget_request *request,
                   double start, struct stretch *stretches)
{
    float curve[PROFILE_POINTS_MAX];
    int count = 0;

    for (int layer = 0; layer < profile->layers; layer++)
        for (int head = 0; head < profile->kv_heads; head++) {
            profile_curve(profile, request->table, layer, head, request->tokens, curve);
            count += add_stretches(profile, curve, layer * profile->kv_heads + head, start,
                                   stretches + count);
        }
    return count;
}

enum tca_status budgets_make(const struct profile *profile, const struct budget_request *request,
                             int layers, int kv_heads, int64_t *budgets_out)
{
    const int heads = layers * kv_heads;
    const int64_t even = select_budget(request->keep, request->tokens, request->window);
    const int64_t least = select_budget(0.0, request->tokens, request->window);
    const int64_t start = even / 2 > least ? even / 2 : least;
    int64_t left = (even - start) * heads;
    struct stretch *stretches;
    int count;

    for (int head = 0; head < heads; head++)
        budgets_out[head] = profile == NULL ? even : start;
    if (profile == NULL || left == 0)
        return TCA_OK;
    stretches = malloc((size_t)heads * (size_t)profile->points * sizeof(*stretches));
    if (stretches == NULL)
        return TCA_ERR_NO_MEMORY;
    count = collect(profile, request, (double)start / (double)request->tokens, stretches);
    qsort(stretches, (size_t)count, sizeof(*stretches), steepest_first);
    for (int i = 0; i < count && left > 0; i++) {
        const double share = stretches[i].upto;
        const int64_t upto =
            share >= 1.0 ? request->tokens : (int64_t)(share * (double)request->tokens);
        int64_t *budget = &budgets_out[stretches[i].head];
        int64_t more = upto - *budget;

        if (more <= 0)
            continue;
        more = more < left ? more : left;
        *budget += more;
        left -= more;
    }
    free(stretches);
    return TCA_OK;
}

int64_t budget_for_mass(const struct profile *profile, enum profile_table table, int layer,
                        int kv_head, double tau, int64_t tokens, int64_t window)
{
    float curve[PROFILE_POINTS_MAX];
    double share_before = 0.0, mass_before = 0.0;

    profile_curve(profile, table, layer, kv_head, tokens, curve);
    for (int i = 0; i < profile->points; i++) {
        const double share = (double)profile->share[i], mass = (double)curve[i];

        if (mass >= tau) {
            const double part = mass > mass_before ? (tau - mass_before) / (mass - mass_before) : 1;

            return select_budget(share_before + (share - share_before) * part, tokens, window);
        }
        share_before = share;
        mass_before = mass;
    }
    return tokens;
}
