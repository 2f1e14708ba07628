/* Runs an operation on the CPU backend, the oracle, and on the CUDA backend, from the same inputs.
 *
 * Inputs that an operation takes in the backend's activation dtype are bf16 values on both sides,
 * so that only the operation itself can differ. Outputs are poisoned first, and what lies past
 * their end must stay so. */
#ifndef TESTS_KERNELS_SIDES_H
#define TESTS_KERNELS_SIDES_H

#include "tests/support/numbers.h"

#include "kernels/backend.h"

enum { SIDE_CPU, SIDE_CUDA, SIDES, GUARD_BYTES = 64, POISON = 0xa5 };

struct side {
    const struct kernel_backend *backend;
    struct kernel_queue *queue;
};

static struct side sides[SIDES];

/* The set-up and the tear-down of a group of tests. */
static inline int open_sides(void **state)
{
    (void)state;
    sides[SIDE_CPU].backend = kernel_backend_cpu();
    sides[SIDE_CUDA].backend = kernel_backend_cuda(0, NULL);
    for (int i = 0; i < SIDES; i++)
        assert_int_equal(sides[i].backend->queue_create(0, 8, &sides[i].queue), TCA_OK);
    return 0;
}

static inline int close_sides(void **state)
{
    (void)state;
    for (int i = 0; i < SIDES; i++)
        sides[i].backend->queue_destroy(sides[i].queue);
    return 0;
}

/* On the device: `bytes` of host and the guard behind them; host NULL: poison. */
static inline void *put(const struct side *side, const void *host, size_t bytes)
{
    uint8_t *filled = malloc(bytes + GUARD_BYTES);
    void *device;

    assert_non_null(filled);
    memset(filled, POISON, bytes + GUARD_BYTES);
    if (host != NULL)
        memcpy(filled, host, bytes);
    assert_int_equal(side->backend->alloc(side->queue->device, bytes + GUARD_BYTES, &device),
                     TCA_OK);
    assert_int_equal(side->backend->upload(side->queue, device, filled, bytes + GUARD_BYTES),
                     TCA_OK);
    free(filled);
    return device;
}

/* Back on the host, owned; the guard is checked, and the device's copy freed. */
static inline void *take(const struct side *side, void *device, size_t bytes)
{
    uint8_t *host = malloc(bytes + GUARD_BYTES);

    assert_non_null(host);
    assert_int_equal(side->backend->download(side->queue, host, device, bytes + GUARD_BYTES),
                     TCA_OK);
    for (int i = 0; i < GUARD_BYTES; i++)
        assert_int_equal(host[bytes + (size_t)i], POISON);
    side->backend->free(side->queue->device, device, bytes + GUARD_BYTES);
    return host;
}

static inline void drop(const struct side *side, void *device, size_t bytes)
{
    free(take(side, device, bytes));
}

static inline float *widen(const uint16_t *values, size_t count)
{
    float *wide = new_array(count, sizeof(*wide));

    for (size_t i = 0; i < count; i++)
        wide[i] = float_of_bf16(values[i]);
    return wide;
}

static inline size_t act_bytes(const struct side *side)
{
    return side->backend->activation == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* An input of activation dtype. */
static inline void *put_act(const struct side *side, const uint16_t *values, size_t count)
{
    float *wide = widen(values, count);
    const void *host = side->backend->activation == KERNEL_F32 ? (const void *)wide : values;
    void *device = put(side, host, count * act_bytes(side));

    free(wide);
    return device;
}

/* Normalised mean squared error of the second against the first: sum (b - a)^2 / sum a^2. */
static inline void assert_near(const float *a, const float *b, size_t count, double bound,
                               const char *what)
{
    double errors = 0;
    double squares = 0;

    for (size_t i = 0; i < count; i++) {
        double error = (double)b[i] - (double)a[i];

        errors += error * error;
        squares += (double)a[i] * (double)a[i];
    }
    if (!(errors <= bound * squares))
        fail_msg("%s: NMSE %.3g of %zu values, at most %.3g", what, errors / squares, count, bound);
}

static inline void assert_near_bf16(const uint16_t *a, const uint16_t *b, size_t count,
                                    double bound, const char *what)
{
    float *wide_a = widen(a, count);
    float *wide_b = widen(b, count);

    assert_near(wide_a, wide_b, count, bound, what);
    free(wide_a);
    free(wide_b);
}

/* Rounding to bf16 alone gives 2^-18 / 3 = 1.3e-6 at each of two roundings. */
#define NMSE_BF16 5e-6
#define NMSE_F32  1e-11

#endif
