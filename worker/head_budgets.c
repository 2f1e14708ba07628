#include "worker/head_budgets.h"

#include "worker/budgets.h"

#include <stdlib.h>
#include <string.h>

enum tca_status head_budgets_init(struct head_budgets *budgets, const struct budget_source *source,
                                  const struct select_method *method)
{
    const size_t heads = (size_t)source->layers * (size_t)source->kv_heads;

    *budgets = (struct head_budgets){.method = *method,
                                     .window = source->window,
                                     .layers = source->layers,
                                     .kv_heads = source->kv_heads};
    budgets->rows = calloc(heads, sizeof(*budgets->rows));
    if (method->rule == SELECT_TCA)
        budgets->shares = calloc(heads * SELECT_TCA_SIZES, sizeof(*budgets->shares));
    if (budgets->rows == NULL || (method->rule == SELECT_TCA && budgets->shares == NULL)) {
        head_budgets_deinit(budgets);
        return TCA_ERR_NO_MEMORY;
    }
    return TCA_OK;
}

void head_budgets_deinit(struct head_budgets *budgets)
{
    free(budgets->rows);
    free(budgets->shares);
    *budgets = (struct head_budgets){0};
}

/* Budgets of all heads of the model: what a mean share gives depends on every one of them. */
static enum tca_status fill_by_share(struct head_budgets *budgets,
                                     const struct budget_source *source,
                                     const struct budget_request *request)
{
    const size_t all = (size_t)source->layers * (size_t)source->all_kv_heads;
    int64_t *rows = malloc(all * sizeof(*rows));
    enum tca_status status;

    if (rows == NULL)
        return TCA_ERR_NO_MEMORY;
    status = budgets_make(source->profile, request, source->layers, source->all_kv_heads, rows);
    for (int layer = 0; status == TCA_OK && layer < source->layers; layer++)
        memcpy(budgets->rows + layer * source->kv_heads,
               rows + layer * source->all_kv_heads + source->kv_head_first,
               (size_t)source->kv_heads * sizeof(*rows));
    free(rows);
    return status;
}

static void fill_by_mass(struct head_budgets *budgets, const struct budget_source *source,
                         const struct budget_request *request, double tau)
{
    for (int layer = 0; layer < source->layers; layer++)
        for (int head = 0; head < source->kv_heads; head++)
            budgets->rows[layer * source->kv_heads + head] = budget_for_mass(
                source->profile, request->table, layer, source->kv_head_first + head, tau,
                request->tokens, request->window);
}

/* The profile's distribution of block sizes: as calibrated where tau asks for mass, else moved to
 * where it spends each head's budget. */
static void fill_shares(struct head_budgets *budgets, const struct budget_source *source,
                        bool by_tau)
{
    const int64_t always = SELECT_BLOCK_TOKENS + budgets->window;

    for (int layer = 0; layer < source->layers; layer++)
        for (int head = 0; head < source->kv_heads; head++) {
            const int at = layer * source->kv_heads + head;
            const struct profile_tca *tca =
                &source->profile->tca[layer * source->all_kv_heads + source->kv_head_first + head];
            const double keep = (double)(budgets->rows[at] - always) /
                                (double)(budgets->tokens > always ? budgets->tokens - always : 1);
            const double mu = by_tau ? (double)tca->mu : select_tca_mu(keep, (double)tca->sigma);

            select_tca_shares(mu, (double)tca->sigma, budgets->shares + at * SELECT_TCA_SIZES);
        }
}

enum tca_status head_budgets_fill(struct head_budgets *budgets, const struct budget_source *source,
                                  const struct sparsity *sparsity, enum profile_table table,
                                  int64_t tokens)
{
    const struct budget_request request = {
        .table = table, .keep = sparsity->keep, .tokens = tokens, .window = source->window};
    const bool by_tau = sparsity->tau > 0.0;

    budgets->tokens = tokens;
    if ((by_tau || budgets->shares != NULL) && source->profile == NULL)
        return TCA_ERR_PRECONDITION;
    if (budgets->shares != NULL && source->profile->tca == NULL)
        return TCA_ERR_PRECONDITION;
    if (by_tau)
        fill_by_mass(budgets, source, &request, sparsity->tau);
    else
        TCA_TRY(fill_by_share(budgets, source, &request));
    if (budgets->shares != NULL)
        fill_shares(budgets, source, by_tau);
    return TCA_OK;
}

bool head_budgets_are_whole(const struct head_budgets *budgets)
{
    for (int i = 0; i < budgets->layers * budgets->kv_heads; i++)
        if (budgets->rows[i] < budgets->tokens)
            return false;
    return true;
}
