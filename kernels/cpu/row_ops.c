/* Operations on rows: the threads share the rows. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <string.h>

/* Values a thread should have before a second one is worth waking. */
enum { GRAIN_VALUES = 8192 };

static int grain_of(int cols)
{
    return 1 + GRAIN_VALUES / (cols + 1);
}

const struct cpu_rows *cpu_rows(enum cpu_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case CPU_ISA_AVX512_BF16:
        return &rows_avx512;
    case CPU_ISA_AVX2:
        return &rows_avx2;
#else
    case CPU_ISA_AVX512_BF16:
    case CPU_ISA_AVX2:
#endif
    case CPU_ISA_PORTABLE:
        break;
    }
    return &rows_portable;
}

struct norm_job {
    const struct cpu_rows *kernels;
    uint16_t *out;
    float *x;
    const float *delta, *rest;
    const float *weight;
    int cols;
    float eps;
};

static void norm_rows(void *context, int first, int rows)
{
    const struct norm_job *job = context;
    for (int row = first; row < first + rows; row++) {
        size_t at = (size_t)row * (size_t)job->cols;
        job->kernels->residual_norm(
            job->out ? job->out + at : NULL, job->x + at, job->delta ? job->delta + at : NULL,
            job->rest ? job->rest + at : NULL, job->weight, job->cols, job->eps);
    }
}

enum tca_status cpu_residual_norm(struct kernel_queue *base, uint16_t *out, float *x,
                                  const void *delta, const void *rest, const float *weight,
                                  int rows, int cols, float eps)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct norm_job job = {.kernels = cpu_rows(queue->isa),
                           .out = out,
                           .x = x,
                           .delta = delta,
                           .rest = rest,
                           .weight = weight,
                           .cols = cols,
                           .eps = eps};
    cpu_queue_run_rows(queue, rows, grain_of(cols), norm_rows, &job);
    return TCA_OK;
}

struct swiglu_job {
    const struct cpu_rows *kernels;
    uint16_t *out;
    const float *gate_up;
    int cols;
};

static void swiglu_rows(void *context, int first, int rows)
{
    const struct swiglu_job *job = context;
    size_t cols = (size_t)job->cols;
    for (int row = first; row < first + rows; row++) {
        const float *gate = job->gate_up + (size_t)row * 2 * cols;
        job->kernels->swiglu(job->out + (size_t)row * cols, gate, gate + cols, job->cols);
    }
}

enum tca_status cpu_swiglu(struct kernel_queue *base, uint16_t *out, const void *gate_up, int rows,
                           int cols)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct swiglu_job job = {
        .kernels = cpu_rows(queue->isa), .out = out, .gate_up = gate_up, .cols = cols};
    cpu_queue_run_rows(queue, rows, grain_of(cols), swiglu_rows, &job);
    return TCA_OK;
}

enum tca_status cpu_take_rows(struct kernel_queue *base, float *out, const float *x,
                              const int32_t *indices, int rows, int cols)
{
    (void)base;
    size_t row_floats = (size_t)cols;
    for (int row = 0; row < rows; row++)
        memcpy(out + (size_t)row * row_floats, x + (size_t)indices[row] * row_floats,
               row_floats * sizeof(*out));
    return TCA_OK;
}
