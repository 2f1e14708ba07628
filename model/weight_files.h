/* The tensors of a Hugging Face folder: memory-mapped safetensors, one file or shards with an
 * index. Opening checks every size: header length, JSON, dtype, shape x dtype == byte range,
 * ranges inside the file and not overlapping, names unique, index and files in agreement.
 * Read-only after open, then usable by any thread. The files must not change while open. */
#ifndef MODEL_WEIGHT_FILES_H
#define MODEL_WEIGHT_FILES_H

#include "base/error.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct weight_files;

enum weight_dtype { WEIGHT_BF16, WEIGHT_F16, WEIGHT_F32 };

struct weight_tensor {
    const char *name; /* borrowed from the files */
    const char *file; /* for messages */
    enum weight_dtype dtype;
    int dimensions; /* 1 or 2 */
    int64_t shape[2];
    const void *data; /* mapped; aligned to nothing in particular */
};

/* Reads model.safetensors, or else what model.safetensors.index.json lists. A tensor of a dtype
 * that is not above may be in a file, but not be found. A fault names file, tensor and reason.
 * TCA_ERR_NOT_FOUND, TCA_ERR_INVALID, TCA_ERR_IO, TCA_ERR_NO_MEMORY. */
enum tca_status weight_files_open(const char *folder, struct weight_files **files_out,
                                  struct tca_error *error);
void weight_files_close(struct weight_files *files); /* NULL is a no-op */

/* Find a tensor and check its shape: [rows, cols], or [cols] when rows is 0. TCA_ERR_NOT_FOUND,
 * TCA_ERR_INVALID (wrong shape), TCA_ERR_UNSUPPORTED (dtype), naming what was expected. */
enum tca_status weight_files_find(const struct weight_files *files, const char *name, int64_t rows,
                                  int64_t cols, struct weight_tensor *tensor_out,
                                  struct tca_error *error);

/* Copy part of a tensor, converted (round to nearest even): rows row_first.. and columns
 * col_first.. of a matrix to out [rows, cols]. A vector is one row. Bounds are the caller's. */
void weight_tensor_read_bf16(const struct weight_tensor *tensor, int64_t row_first, int64_t rows,
                             int64_t col_first, int64_t cols, uint16_t *out);
/* The same without rounding. */
void weight_tensor_read_f32(const struct weight_tensor *tensor, int64_t row_first, int64_t rows,
                            int64_t col_first, int64_t cols, float *out);

/* A model's identity, hex SHA-256 over tensor names, shapes, dtypes and bytes that are sampled
 * (first and last 4 KiB of each): cheap, and different for different weights. TCA_ERR_NO_MEMORY. */
enum { WEIGHT_FINGERPRINT_BYTES = 65 };
enum tca_status weight_files_fingerprint(const struct weight_files *files,
                                         char fingerprint_out[WEIGHT_FINGERPRINT_BYTES]);

#endif
