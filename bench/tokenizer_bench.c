/* tca-bench-tokenizer: how fast the tokenizer of a model encodes a text, one thread. Prints one
 * JSON line: bytes, tokens, and the processor seconds of the fastest and the median of some calls
 * after one to warm up. */
#include "base/bytes.h"
#include "base/settings.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS_MAX = 100 };

struct options {
    int64_t rounds;
};

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, rounds), .name = "rounds", .initial = "5", .metavar = "N",
     .help = "calls that count", .min = 1, .max = ROUNDS_MAX},
};

static const struct settings_table table = {.program = "tca-bench-tokenizer",
                                            .synopsis = "MODEL_FOLDER TEXT_FILE",
                                            .rows = rows,
                                            .count = sizeof(rows) / sizeof(*rows)};

static bool read_text(const char *path, struct bytes *text_out)
{
    FILE *file = fopen(path, "rb");
    char part[65536];
    size_t got;

    if (file == NULL)
        return false;
    while ((got = fread(part, 1, sizeof(part), file)) > 0)
        if (bytes_append(text_out, part, got) != TCA_OK)
            break;
    fclose(file);
    return got == 0;
}

static int64_t processor_ns(void)
{
    struct timespec used;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static int compare(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

static enum tca_status measure(const struct tokenizer *tokenizer, const struct bytes *text,
                               int rounds)
{
    int64_t taken_ns[ROUNDS_MAX];
    struct token_ids ids = {0};

    for (int round = -1; round < rounds; round++) {
        const int64_t start = processor_ns();
        enum tca_status status;

        token_ids_free(&ids);
        status = tokenizer_encode(tokenizer, (const char *)text->data, text->size, false, &ids);
        if (status != TCA_OK)
            return status;
        if (round >= 0)
            taken_ns[round] = processor_ns() - start;
    }
    qsort(taken_ns, (size_t)rounds, sizeof(*taken_ns), compare);
    printf("{\"bytes\": %zu, \"tokens\": %zu, \"fastest_s\": %.6f, \"median_s\": %.6f}\n",
           text->size, ids.count, (double)taken_ns[0] * 1e-9, (double)taken_ns[rounds / 2] * 1e-9);
    token_ids_free(&ids);
    return TCA_OK;
}

static int run(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;
    const char *path;
    struct tokenizer *tokenizer = NULL;
    struct bytes text = {0};
    struct tca_error error = {0};
    enum tca_status status;

    if (arguments->positionals != 2) {
        fprintf(stderr, "tca-bench-tokenizer: %s are needed\n", table.synopsis);
        return 2;
    }
    path = arguments->positional[1];
    if (tokenizer_open(arguments->positional[0], &tokenizer, &error) != TCA_OK) {
        fprintf(stderr, "tca-bench-tokenizer: %s\n", error.text);
        return EXIT_FAILURE;
    }
    status = read_text(path, &text) ? measure(tokenizer, &text, (int)options->rounds) : TCA_ERR_IO;
    if (status != TCA_OK)
        fprintf(stderr, "tca-bench-tokenizer: %s: %s\n", path, tca_status_text(status));
    bytes_free(&text);
    tokenizer_close(tokenizer);
    return status == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;

    return settings_run(&table, argc, argv, &options, run);
}
