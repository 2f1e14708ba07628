/* A calibration from options to file: loads the model on a group, runs one dense pass over a
 * document of each length, measures in between (measure.h) on every rank, writes the profile. */
#ifndef CALIBRATE_CALIBRATE_H
#define CALIBRATE_CALIBRATE_H

#include "base/error.h"
#include "model/profile.h"
#include "worker/rank_device.h"

#include <stdint.h>

struct calibrate_options {
    const char *model_folder;
    const char *out; /* file */
    char *const *files;
    size_t file_count;
    int64_t longest; /* tokens; 0: 131,072, or what the model can */
    int positions;   /* of each document, where it has room for them */
    int questions;   /* of each document */
    int64_t window;
    double threshold; /* kept mass that `tca` is to reach */
    uint64_t seed;
    int chunk_tokens;
    enum device_wish device;
    int local_ranks; /* as in worker/group_run.h */
    int threads;
    int64_t kv_memory_bytes;
};

/* The lengths of documents, rising: 8K, 32K and the longest. lengths_out: [PROFILE_LENGTHS_MAX].
 * TCA_ERR_RANGE names the option and what the model allows. */
enum tca_status calibrate_lengths(int64_t longest, int max_positions, int64_t *lengths_out,
                                  int *count_out, struct tca_error *error);

/* Collective over the ranks of mpirun, if there are any. A failure was logged. */
enum tca_status calibrate(const struct calibrate_options *options);

#endif
