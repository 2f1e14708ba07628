/* Matrix products: of few rows by an own kernel, of more by cuBLASLt. It thinks in columns: our
 * out^T [out, rows] = weight [out, in] by x^T [in, rows], all of them as they lie in memory. */
#include "base/log.h"
#include "kernels/cuda/algorithm_cache.h"
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/weight.h"

enum { ALIGNMENT_MOST = 256, TRIALS_MOST = 8, TRIAL_RUNS = 3 };

struct matmul {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t weight, x, out;
};

static int alignment_of(const void *a, const void *b, const void *c)
{
    uintptr_t bits = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | ALIGNMENT_MOST;

    return (int)(bits & -bits);
}

static enum tca_status describe(struct matmul *matmul, const struct matmul_shape *shape,
                                const void *bias)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t add_bias = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t out = shape->out_dtype == KERNEL_F32 ? CUDA_R_32F : CUDA_R_16BF;
    uint64_t in_rows = (uint64_t)shape->in;
    uint64_t out_rows = (uint64_t)shape->out;
    uint64_t rows = (uint64_t)shape->rows;

    TCA_TRY(cublas_status(cublasLtMatmulDescInit(&matmul->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                          "matmul desc"));
    TCA_TRY(
        cublas_status(cublasLtMatmulDescSetAttribute(&matmul->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                     &transposed, sizeof(transposed)),
                      "matmul transposition"));
    if (shape->has_bias) {
        TCA_TRY(cublas_status(cublasLtMatmulDescSetAttribute(&matmul->product,
                                                             CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                             &add_bias, sizeof(add_bias)),
                              "matmul epilogue"));
        TCA_TRY(cublas_status(cublasLtMatmulDescSetAttribute(&matmul->product,
                                                             CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                             &bias, sizeof(bias)),
                              "matmul bias"));
    }
    TCA_TRY(cublas_status(
        cublasLtMatrixLayoutInit(&matmul->weight, CUDA_R_16BF, in_rows, out_rows, shape->in),
        "weight layout"));
    TCA_TRY(cublas_status(
        cublasLtMatrixLayoutInit(&matmul->x, CUDA_R_16BF, in_rows, rows, shape->in), "x layout"));
    return cublas_status(cublasLtMatrixLayoutInit(&matmul->out, out, out_rows, rows, shape->out),
                         "out layout");
}

/* Ask cuBLASLt for algorithms, that which it expects to be fastest first: at least one. */
static enum tca_status list_algorithms(struct cuda_queue *queue, struct matmul *matmul,
                                       const struct matmul_shape *shape,
                                       cublasLtMatmulHeuristicResult_t *results, int most,
                                       int *found_out)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint64_t workspace = MATMUL_WORKSPACE_BYTES;
    const uint32_t alignment = (uint32_t)shape->alignment;
    cublasLtMatmulPreferenceOpaque_t preference;

    *found_out = 0;
    TCA_TRY(cublas_status(cublasLtMatmulPreferenceInit(&preference), "matmul preference"));
    TCA_TRY(cublas_status(
        cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof(workspace)),
        "matmul workspace"));
    for (size_t i = 0; i < sizeof(alignments) / sizeof(*alignments); i++)
        TCA_TRY(cublas_status(cublasLtMatmulPreferenceSetAttribute(&preference, alignments[i],
                                                                   &alignment, sizeof(alignment)),
                              "matmul alignment"));
    if (cublasLtMatmulAlgoGetHeuristic(queue->blas, &matmul->product, &matmul->weight, &matmul->x,
                                       &matmul->out, &matmul->out, &preference, most, results,
                                       found_out) != CUBLAS_STATUS_SUCCESS ||
        *found_out == 0) {
        log_error("cuBLASLt knows no product of %d x %d by %d x %d", shape->rows, shape->in,
                  shape->in, shape->out);
        return TCA_ERR_UNSUPPORTED;
    }
    return TCA_OK;
}

static cublasStatus_t multiply(struct cuda_queue *queue, struct matmul *matmul, void *out,
                               const uint16_t *x, const struct kernel_weight *weight,
                               const cublasLtMatmulAlgo_t *algorithm)
{
    const float one = 1.0F, zero = 0.0F;

    return cublasLtMatmul(queue->blas, &matmul->product, &one, weight->data, &matmul->weight, x,
                          &matmul->x, &zero, out, &matmul->out, out, &matmul->out, algorithm,
                          queue->matmul_workspace, MATMUL_WORKSPACE_BYTES, queue->stream);
}

/* cuBLASLt adds a bias of the output's dtype only. */
static enum tca_status convert_bias(struct cuda_queue *queue, enum kernel_dtype out_dtype,
                                    const float *bias, int count, const void **bias_out)
{
    *bias_out = bias;
    if (bias == NULL || out_dtype == KERNEL_F32)
        return TCA_OK;
    *bias_out = queue->bias;
    cuda_launch_to_bf16(queue->stream, queue->bias, bias, count);
    return cuda_launch_status("to_bf16");
}

static struct matmul_shape shape_of(const void *out, enum kernel_dtype out_dtype, const uint16_t *x,
                                    const struct kernel_weight *weight, const float *bias, int rows)
{
    return (struct matmul_shape){.rows = rows,
                                 .in = weight->cols,
                                 .out = weight->rows,
                                 .out_dtype = out_dtype,
                                 .has_bias = bias != NULL,
                                 .alignment = alignment_of(out, x, weight->data)};
}

/* What was found before for the shape or, of few rows, by trials for the next power of two. */
static const cublasLtMatmulAlgo_t *find_algorithm(const struct cuda_queue *queue,
                                                  const struct matmul_shape *shape)
{
    const cublasLtMatmulAlgo_t *algorithm = algorithm_cache_find(queue->algorithms, shape);
    struct matmul_shape larger = *shape;

    if (algorithm != NULL || shape->rows > LINEAR_SHARED_ROWS_MOST)
        return algorithm;
    larger.rows = LINEAR_SHARED_ROWS_LEAST;
    while (larger.rows < shape->rows)
        larger.rows *= 2;
    return algorithm_cache_find(queue->algorithms, &larger);
}

enum tca_status cuda_linear(struct kernel_queue *base, void *out, enum kernel_dtype out_dtype,
                            const uint16_t *x, const struct kernel_weight *weight,
                            const float *bias, int rows)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct matmul_shape shape = shape_of(out, out_dtype, x, weight, bias, rows);
    const cublasLtMatmulAlgo_t *algorithm;
    cublasLtMatmulHeuristicResult_t chosen;
    struct matmul matmul;
    const void *bias_cast;
    int found;

    if (rows == 0)
        return TCA_OK;
    if (cuda_gemv_takes(&shape)) {
        cuda_launch_gemv(queue->stream, out, &shape, x, weight->data, bias);
        return cuda_launch_status("gemv");
    }
    algorithm = find_algorithm(queue, &shape);
    TCA_TRY(convert_bias(queue, out_dtype, bias, weight->rows, &bias_cast));
    TCA_TRY(describe(&matmul, &shape, bias_cast));
    if (algorithm != NULL &&
        multiply(queue, &matmul, out, x, weight, algorithm) == CUBLAS_STATUS_SUCCESS)
        return TCA_OK;
    TCA_TRY(list_algorithms(queue, &matmul, &shape, &chosen, 1, &found));
    algorithm_cache_keep(queue->algorithms, &shape, &chosen.algo, false);
    return cublas_status(multiply(queue, &matmul, out, x, weight, &chosen.algo), "cublasLtMatmul");
}

/* What is timed: a product of `algorithm`, several times over. */
struct trial {
    struct matmul *matmul;
    void *out;
    const uint16_t *x;
    const struct kernel_weight *weight;
    cudaEvent_t begin, end;
};

/* Milliseconds, or a negative number: this algorithm does not do it. */
static float time_trial(struct cuda_queue *queue, const struct trial *trial,
                        const cublasLtMatmulAlgo_t *algorithm)
{
    float ms;

    for (int i = 0; i <= TRIAL_RUNS; i++) {
        if (i == 1 && cudaEventRecord(trial->begin, queue->stream) != cudaSuccess)
            return -1; /* the first run warms up */
        if (multiply(queue, trial->matmul, trial->out, trial->x, trial->weight, algorithm) !=
            CUBLAS_STATUS_SUCCESS)
            return -1;
    }
    if (cudaEventRecord(trial->end, queue->stream) != cudaSuccess ||
        cudaEventSynchronize(trial->end) != cudaSuccess ||
        cudaEventElapsedTime(&ms, trial->begin, trial->end) != cudaSuccess)
        return -1;
    return ms;
}

static enum tca_status keep_fastest(struct cuda_queue *queue, const struct trial *trial,
                                    const struct matmul_shape *shape,
                                    const cublasLtMatmulHeuristicResult_t *results, int count)
{
    float best_ms = -1;
    int best = 0;

    for (int i = 0; i < count; i++) {
        float ms = time_trial(queue, trial, &results[i].algo);

        if (ms >= 0 && (best_ms < 0 || ms < best_ms)) {
            best_ms = ms;
            best = i;
        }
    }
    (void)cudaGetLastError(); /* a trial that failed is no failure */
    algorithm_cache_keep(queue->algorithms, shape, &results[best].algo, true);
    return cuda_queue_wait(&queue->base);
}

enum tca_status cuda_linear_prepare(struct kernel_queue *base, void *out,
                                    enum kernel_dtype out_dtype, const uint16_t *x,
                                    const struct kernel_weight *weight, const float *bias, int rows)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct matmul_shape shape = shape_of(out, out_dtype, x, weight, bias, rows);
    cublasLtMatmulHeuristicResult_t results[TRIALS_MOST];
    struct matmul matmul;
    struct trial trial = {.matmul = &matmul, .out = out, .x = x, .weight = weight};
    enum tca_status status;
    const void *bias_cast;
    int found;

    if (rows == 0 || cuda_gemv_takes(&shape) ||
        algorithm_cache_find(queue->algorithms, &shape) != NULL)
        return TCA_OK;
    TCA_TRY(convert_bias(queue, out_dtype, bias, weight->rows, &bias_cast));
    TCA_TRY(describe(&matmul, &shape, bias_cast));
    TCA_TRY(list_algorithms(queue, &matmul, &shape, results, TRIALS_MOST, &found));
    TCA_TRY(cuda_status(cudaEventCreate(&trial.begin), "cudaEventCreate"));
    status = cuda_status(cudaEventCreate(&trial.end), "cudaEventCreate");
    if (status == TCA_OK) {
        status = keep_fastest(queue, &trial, &shape, results, found);
        cudaEventDestroy(trial.end);
    }
    cudaEventDestroy(trial.begin);
    return status;
}
