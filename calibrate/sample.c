#include "calibrate/sample.h"

#include "kernels/select.h"

#include <assert.h>

/* In units of blocks: `starts` places in a row, of which each sample covers `width`. */
int sample_positions(int64_t tokens, int wanted, struct sampler_random *random, int64_t *starts_out)
{
    const int64_t width = select_blocks(SAMPLE_TEXT_ROWS);
    const int64_t first = select_blocks((tokens + 1) / 2);
    const int64_t room = tokens / SELECT_BLOCK_TOKENS - first;
    int64_t count = room / width;

    if (count > wanted)
        count = wanted;
    for (int64_t i = 0; i < count; i++) {
        const int64_t from = i * room / count, end = (i + 1) * room / count;

        starts_out[i] = (first + from + sampler_random_below(random, end - from - width + 1)) *
                        SELECT_BLOCK_TOKENS;
    }
    return (int)count;
}

struct sample sample_of_text(int length, int64_t earlier, struct sampler_random *random)
{
    struct sample sample = {.length = length,
                            .earlier = earlier,
                            .rows = SAMPLE_TEXT_ROWS,
                            .observers = SAMPLE_OBSERVERS};

    /* Each row is taken with the chance that is left to it (Knuth's algorithm S). */
    for (int row = SAMPLE_OBSERVERS; row < SAMPLE_TEXT_ROWS; row++)
        if (sampler_random_below(random, SAMPLE_TEXT_ROWS - row) < SAMPLE_JUDGED - sample.judged)
            sample.judged_row[sample.judged++] = row;
    return sample;
}

struct sample sample_of_question(int length, int64_t document_tokens, int question_tokens,
                                 int answer_tokens)
{
    struct sample sample = {.length = length,
                            .is_question = 1,
                            .earlier = document_tokens,
                            .rows = question_tokens + answer_tokens,
                            .observers = question_tokens,
                            .judged = answer_tokens};

    assert(sample.rows <= SAMPLE_QUESTION_ROWS_MAX && answer_tokens <= SAMPLE_JUDGED);
    for (int i = 0; i < answer_tokens; i++)
        sample.judged_row[i] = question_tokens + i;
    return sample;
}
