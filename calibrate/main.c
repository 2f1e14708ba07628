/* tca-calibrate: measures a model's attention once and writes its profile. */
#include "base/log.h"
#include "base/settings.h"
#include "calibrate/calibrate.h"
#include "calibrate/documents.h"
#include "calibrate/sample.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
    char *model;
    char *out;
    int64_t longest;
    int64_t positions;
    int64_t questions;
    int64_t window;
    double threshold;
    int64_t seed;
    int device;
    int64_t local_ranks;
    int64_t threads;
    int64_t chunk;
    int64_t kv_memory;
};

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, model), .name = "model", .metavar = "DIR",
     .help = "Hugging Face folder of the model"},
    {SETTING_FIELD(struct options, out), .name = "out", .metavar = "FILE",
     .help = "the profile to write; default: tca-profile.json in the model's folder"},
    {SETTING_FIELD(struct options, longest), .name = "longest", .initial = "0", .metavar = "N",
     .help = "tokens of the longest document, beside 8192 and 32768; 0: 131072, or what the model "
             "can",
     .max = INT32_MAX},
    {SETTING_FIELD(struct options, positions), .name = "positions", .initial = "8", .metavar = "N",
     .help = "places to measure in the second half of each document", .min = 1,
     .max = SAMPLE_POSITIONS_MAX},
    {SETTING_FIELD(struct options, questions), .name = "questions", .initial = "8", .metavar = "N",
     .help = "planted facts to ask for in each document, where the model has a chat format",
     .max = DOCUMENT_QUESTIONS_MAX},
    {SETTING_FIELD(struct options, window), .name = "window", .initial = "1024", .metavar = "N",
     .help = "last tokens that every selection keeps, as the service will", .max = INT32_MAX},
    {SETTING_FIELD(struct options, threshold), .name = "threshold", .initial = "0.9",
     .metavar = "MASS", .help = "kept mass that the rule tca is to reach in every head",
     .real_min = 0.01, .real_max = 1.0},
    {SETTING_FIELD(struct options, seed), .name = "seed", .initial = "1", .metavar = "N",
     .help = "of places, judged tokens and facts", .max = INT64_MAX},
    {SETTING_FIELD(struct options, device), .name = "device", .initial = "auto",
     .choices = device_wish_names, .metavar = "NAME",
     .help = "cpu, cuda, or auto: cuda where there is one"},
    {SETTING_FIELD(struct options, local_ranks), .name = "local-ranks", .initial = "0",
     .metavar = "N",
     .help = "ranks as threads of this process; 0: every process of mpirun is one rank",
     .max = 256},
    {SETTING_FIELD(struct options, threads), .name = "threads", .initial = "0", .metavar = "N",
     .help = "CPU threads of a rank; 0: the cores divided by the ranks", .max = 1024},
    {SETTING_FIELD(struct options, chunk), .name = "chunk", .initial = "2048", .metavar = "N",
     .help = "prefill tokens of one step", .min = SAMPLE_TEXT_ROWS, .max = 1 << 20},
    {SETTING_FIELD(struct options, kv_memory), .name = "kv-memory", .initial = "0",
     .metavar = "BYTES", .help = "KV memory of a rank; 0: half of what is free", .is_bytes = true},
};

static const struct settings_table table = {.program = "tca-calibrate",
                                            .synopsis = "TEXT_FILE..",
                                            .rows = rows,
                                            .count = sizeof(rows) / sizeof(*rows)};

static int run(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;
    struct calibrate_options calibration = {.model_folder = options->model,
                                            .files = arguments->positional,
                                            .file_count = (size_t)arguments->positionals,
                                            .longest = options->longest,
                                            .positions = (int)options->positions,
                                            .questions = (int)options->questions,
                                            .window = options->window,
                                            .threshold = options->threshold,
                                            .seed = (uint64_t)options->seed,
                                            .chunk_tokens = (int)options->chunk,
                                            .device = (enum device_wish)options->device,
                                            .local_ranks = (int)options->local_ranks,
                                            .threads = (int)options->threads,
                                            .kv_memory_bytes = options->kv_memory};
    char in_folder[4096];
    enum tca_status status;

    if (options->model == NULL || arguments->positionals == 0) {
        fprintf(stderr, "tca-calibrate: --model DIR and at least one file of text are needed\n");
        return 2;
    }
    if ((size_t)snprintf(in_folder, sizeof(in_folder), "%s/tca-profile.json", options->model) >=
        sizeof(in_folder)) {
        fprintf(stderr, "tca-calibrate: --model: longer than %zu bytes\n", sizeof(in_folder));
        return 2;
    }
    calibration.out = options->out == NULL ? in_folder : options->out;
    status = calibrate(&calibration);
    return status == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;

    log_init("tca-calibrate", LOG_LEVEL_INFO);
    return settings_run(&table, argc, argv, &options, run);
}
