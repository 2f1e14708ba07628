/* Reading parts of tensors: bytes in the files are little-endian and aligned to nothing. */
#include "base/bf16.h"
#include "model/weight_files.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files' byte order is the host's");

/* Exact: every half is a float. */
static float f16_to_float(uint16_t value)
{
    const uint32_t sign = (uint32_t)(value & 0x8000U) << 16;
    const uint32_t exponent = value >> 10 & 0x1fU;
    const uint32_t mantissa = value & 0x3ffU;
    uint32_t bits;
    float result;

    if (exponent == 0) { /* zero and denormals: mantissa x 2^-24 */
        result = (float)mantissa * 0x1p-24F;
        return sign != 0 ? -result : result;
    }
    bits = sign | mantissa << 13 | (exponent == 0x1f ? 0x7f800000U : (exponent + 127 - 15) << 23);
    memcpy(&result, &bits, sizeof(result));
    return result;
}

static size_t element_bytes(enum weight_dtype dtype)
{
    return dtype == WEIGHT_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* The address of an element; a vector is one row. */
static const uint8_t *place(const struct weight_tensor *tensor, int64_t row, int64_t col)
{
    const int64_t cols = tensor->dimensions == 1 ? tensor->shape[0] : tensor->shape[1];

    return (const uint8_t *)tensor->data +
           (size_t)(row * cols + col) * element_bytes(tensor->dtype);
}

static float f32_at(const uint8_t *source, int64_t i)
{
    float value;

    memcpy(&value, source + (size_t)i * sizeof(value), sizeof(value));
    return value;
}

static uint16_t u16_at(const uint8_t *source, int64_t i)
{
    uint16_t value;

    memcpy(&value, source + (size_t)i * sizeof(value), sizeof(value));
    return value;
}

static void row_to_bf16(enum weight_dtype dtype, const uint8_t *source, int64_t cols, uint16_t *out)
{
    switch (dtype) {
    case WEIGHT_BF16:
        memcpy(out, source, (size_t)cols * sizeof(*out));
        break;
    case WEIGHT_F16:
        for (int64_t i = 0; i < cols; i++)
            out[i] = bf16_from_float(f16_to_float(u16_at(source, i)));
        break;
    case WEIGHT_F32:
        for (int64_t i = 0; i < cols; i++)
            out[i] = bf16_from_float(f32_at(source, i));
        break;
    }
}

static void row_to_f32(enum weight_dtype dtype, const uint8_t *source, int64_t cols, float *out)
{
    switch (dtype) {
    case WEIGHT_BF16:
        for (int64_t i = 0; i < cols; i++)
            out[i] = bf16_to_float(u16_at(source, i));
        break;
    case WEIGHT_F16:
        for (int64_t i = 0; i < cols; i++)
            out[i] = f16_to_float(u16_at(source, i));
        break;
    case WEIGHT_F32:
        memcpy(out, source, (size_t)cols * sizeof(*out));
        break;
    }
}

void weight_tensor_read_bf16(const struct weight_tensor *tensor, int64_t row_first, int64_t rows,
                             int64_t col_first, int64_t cols, uint16_t *out)
{
    for (int64_t row = 0; row < rows; row++)
        row_to_bf16(tensor->dtype, place(tensor, row_first + row, col_first), cols,
                    out + row * cols);
}

void weight_tensor_read_f32(const struct weight_tensor *tensor, int64_t row_first, int64_t rows,
                            int64_t col_first, int64_t cols, float *out)
{
    for (int64_t row = 0; row < rows; row++)
        row_to_f32(tensor->dtype, place(tensor, row_first + row, col_first), cols,
                   out + row * cols);
}
