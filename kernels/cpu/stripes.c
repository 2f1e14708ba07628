/* Between the order of a sequence and that of its stripes. Little data: one thread. */
#include "kernels/cpu/ops.h"

#include <string.h>

enum tca_status cpu_interleave(struct kernel_queue *base, float *out, const float *gathered,
                               const struct kernel_stripes *stripes, int64_t stride, int64_t total)
{
    const int64_t unit = stripes->unit;
    (void)base;
    for (int64_t first = 0; first < total; first += unit) {
        int64_t number = first / unit;
        int64_t values = total - first < unit ? total - first : unit;
        const float *from =
            gathered + number % stripes->stripes * stride + number / stripes->stripes * unit;
        memcpy(out + first, from, (size_t)values * sizeof(*out));
    }
    return TCA_OK;
}

enum tca_status cpu_pick(struct kernel_queue *base, int32_t *picked_out, int32_t *count_out,
                         const int32_t *kept, const int32_t *count,
                         const struct kernel_stripes *stripes)
{
    int32_t picked = 0;
    (void)base;
    for (int32_t i = 0; i < *count; i++) {
        int64_t unit = kept[i] / stripes->unit;
        if (unit % stripes->stripes == stripes->stripe)
            picked_out[picked++] =
                (int32_t)(unit / stripes->stripes * stripes->unit + kept[i] % stripes->unit);
    }
    *count_out = picked;
    return TCA_OK;
}
