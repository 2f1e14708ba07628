#include "tests/support/numbers.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
enum { ISAS = 3 };

static struct kernel_queue *new_queue(size_t isa)
{
    struct kernel_queue *queue;
    assert_int_equal(cpu_queue_create((int)isa + 1, isas[isa], &queue), TCA_OK);
    return queue;
}

static void check_residual_norm(size_t isa, int rows, int cols, int addends, bool has_out)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue = new_queue(isa);
    uint64_t random = 5;
    size_t count = (size_t)rows * (size_t)cols;
    float *x = new_floats(count, &random);
    float *delta = addends > 0 ? new_floats(count, &random) : NULL;
    float *rest = addends > 1 ? new_floats(count, &random) : NULL;
    float *weight = new_floats((size_t)cols, &random);
    uint16_t *out = has_out ? new_array(count, sizeof(*out)) : NULL;
    double *want_x = new_array(count, sizeof(*want_x));
    double *want = new_array(count, sizeof(*want));
    for (size_t row = 0; row < (size_t)rows; row++) {
        double squares = 0;
        for (size_t i = row * (size_t)cols; i < (row + 1) * (size_t)cols; i++) {
            want_x[i] =
                (double)x[i] + (delta ? (double)delta[i] : 0) + (rest ? (double)rest[i] : 0);
            squares += want_x[i] * want_x[i];
        }
        double scale = 1 / sqrt(squares / cols + 1e-5);
        for (size_t i = 0; i < (size_t)cols; i++)
            want[row * (size_t)cols + i] =
                want_x[row * (size_t)cols + i] * scale * (double)weight[i];
    }
    assert_int_equal(cpu->residual_norm(queue, out, x, delta, rest, weight, rows, cols, 1e-5f),
                     TCA_OK);
    assert_close(x, want_x, count, 1e-6, 1e-6, "residual");
    if (has_out)
        assert_close_bf16(out, want, count, 1e-5, 1.0 / 256, "norm");
    free(want);
    free(want_x);
    free(out);
    free(weight);
    free(rest);
    free(delta);
    free(x);
    cpu_queue_destroy(queue);
}

static void residual_norm_adds_then_normalises(void **state)
{
    (void)state;
    for (size_t isa = 0; isa < ISAS; isa++) {
        check_residual_norm(isa, 1, 1, 0, true);
        check_residual_norm(isa, 1, 576, 1, true);
        check_residual_norm(isa, 37, 33, 2, true);
        check_residual_norm(isa, 200, 320, 1, false);
        check_residual_norm(isa, 65, 1000, 0, true);
    }
}

static void a_row_of_zeros_stays_zero(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue = new_queue(2);
    float *x = new_floats(64, NULL);
    float *weight = new_floats(64, NULL);
    uint16_t *out = new_array(64, sizeof(*out));
    memset(out, 0xff, 64 * sizeof(*out));
    assert_int_equal(cpu->residual_norm(queue, out, x, NULL, NULL, weight, 1, 64, 1e-6f), TCA_OK);
    for (int i = 0; i < 64; i++)
        assert_true(float_of_bf16(out[i]) == 0);
    free(out);
    free(weight);
    free(x);
    cpu_queue_destroy(queue);
}

static void swiglu_matches_the_reference(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    enum { ROWS = 45, COLS = 131 };
    static const float extremes[] = {0, -0.0f, 88, -88, 200, -200, 1e30f, -1e30f, 1e-30f};
    for (size_t isa = 0; isa < ISAS; isa++) {
        struct kernel_queue *queue = new_queue(isa);
        uint64_t random = 3;
        float *gate_up = new_floats(ROWS * 2 * COLS, &random);
        for (size_t i = 0; i < ROWS * 2 * COLS; i++)
            gate_up[i] *= 12;
        memcpy(gate_up, extremes, sizeof(extremes));
        for (size_t i = 0; i < COLS; i++)
            gate_up[COLS + i] = 1;
        uint16_t *out = new_array(ROWS * COLS, sizeof(*out));
        double *want = new_array(ROWS * COLS, sizeof(*want));
        for (size_t row = 0; row < ROWS; row++)
            for (size_t i = 0; i < COLS; i++) {
                double gate = (double)gate_up[row * 2 * COLS + i];
                double up = (double)gate_up[row * 2 * COLS + COLS + i];
                want[row * COLS + i] = gate / (1 + exp(-gate)) * up;
            }
        assert_int_equal(cpu->swiglu(queue, out, gate_up, ROWS, COLS), TCA_OK);
        assert_close_bf16(out, want, ROWS * COLS, 1e-6, 1.0 / 250, "swiglu");
        free(want);
        free(out);
        free(gate_up);
        cpu_queue_destroy(queue);
    }
}

static void take_rows_copies_rows(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue = new_queue(0);
    static const int32_t indices[] = {4, 0, 4, 2};
    uint64_t random = 1;
    float *x = new_floats(5 * 7, &random);
    float *out = new_floats(4 * 7, NULL);
    assert_int_equal(cpu->take_rows(queue, out, x, indices, 4, 7), TCA_OK);
    for (int i = 0; i < 4; i++)
        assert_memory_equal(out + 7 * i, x + 7 * indices[i], 7 * sizeof(float));
    free(out);
    free(x);
    cpu_queue_destroy(queue);
}

/* Sorts (value, id) pairs plainly: value falling, id rising. */
static void check_top(const float *row, int cols, int count, const float *values,
                      const int32_t *ids, float lse)
{
    bool *is_taken = new_array((size_t)cols, sizeof(*is_taken));
    double sum = 0;
    for (int rank = 0; rank < count; rank++) {
        int best = -1;
        for (int i = 0; i < cols; i++)
            if (!is_taken[i] && (best < 0 || row[i] > row[best]))
                best = i;
        assert_int_equal(ids[rank], best);
        if (best < 0) {
            assert_true(isinf(values[rank]) && values[rank] < 0);
            continue;
        }
        is_taken[best] = true;
        assert_true(values[rank] == row[best]);
    }
    for (int i = 0; i < cols; i++)
        sum += exp((double)row[i] - (double)values[0]);
    double want = (double)values[0] + log(sum);
    assert_close(&lse, &want, 1, 1e-5, 1e-6, "lse");
    free(is_taken);
}

static void logits_top_sorts_and_breaks_ties_by_id(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    static const struct {
        int rows, cols, count, levels; /* few levels: many ties */
    } cases[] = {{1, 1, 1, 0}, {3, 49, 49, 4},  {2, 1366, 40, 9}, {5, 1000, 1, 2},
                 {2, 5, 8, 3}, {4, 300, 64, 1}, {1, 49152, 20, 0}};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct kernel_queue *queue = new_queue(c % ISAS);
        int rows = cases[c].rows, cols = cases[c].cols, count = cases[c].count;
        uint64_t random = 11;
        float *logits = new_floats((size_t)(rows * cols), &random);
        for (int i = 0; cases[c].levels > 0 && i < rows * cols; i++)
            logits[i] = floorf(logits[i] * (float)cases[c].levels);
        float *values = new_floats((size_t)(rows * count), NULL);
        int32_t *ids = new_array((size_t)(rows * count), sizeof(*ids));
        float *lse = new_floats((size_t)rows, NULL);
        assert_int_equal(cpu->logits_top(queue, values, ids, lse, logits, rows, cols, count),
                         TCA_OK);
        for (int row = 0; row < rows; row++)
            check_top(logits + row * cols, cols, count, values + row * count, ids + row * count,
                      lse[row]);
        free(lse);
        free(ids);
        free(values);
        free(logits);
        cpu_queue_destroy(queue);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(residual_norm_adds_then_normalises),
        cmocka_unit_test(a_row_of_zeros_stays_zero),
        cmocka_unit_test(swiglu_matches_the_reference),
        cmocka_unit_test(take_rows_copies_rows),
        cmocka_unit_test(logits_top_sorts_and_breaks_ties_by_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
