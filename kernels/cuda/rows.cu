/* Operations on whole rows: one block a row, neighbouring threads on neighbouring values. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/launch.h"

enum { THREADS = 256, WIDE_THREADS = 1024, WIDE_ROWS_MOST = 64, LANES = 32 };

static __global__ void to_bf16(uint16_t *out, const float *x, int count)
{
    int i = blockIdx.x * THREADS + threadIdx.x;

    if (i < count)
        out[i] = bf16_of_float(x[i]);
}

static __global__ void dummy(uint16_t *out, struct dummy_rows rows, int cols)
{
    int64_t row = blockIdx.x;

    for (int col = threadIdx.x; col < cols; col += THREADS)
        out[row * cols + col] =
            dummy_bf16(rows.seed, rows.first + row * rows.stride + col, rows.scale);
}

static __global__ void embed(float *out, const uint16_t *table, int table_rows, int cols,
                             const int32_t *ids, int first_id)
{
    int64_t index = (int64_t)ids[blockIdx.x] - first_id;
    bool is_ours = index >= 0 && index < table_rows;
    const uint16_t *from = table + (is_ours ? index : 0) * cols;
    float *to = out + (int64_t)blockIdx.x * cols;

    for (int col = threadIdx.x; col < cols; col += THREADS)
        to[col] = is_ours ? float_of_bf16(from[col]) : 0.0f;
}

static __global__ void take_rows(float *out, const float *x, const int32_t *indices, int cols)
{
    const float *from = x + (int64_t)indices[blockIdx.x] * cols;
    float *to = out + (int64_t)blockIdx.x * cols;

    for (int col = threadIdx.x; col < cols; col += THREADS)
        to[col] = from[col];
}

template <int ALL> static __device__ float block_sum(float value)
{
    __shared__ float sums[ALL / LANES];

    value = warp_sum(value);
    if (threadIdx.x % LANES == 0)
        sums[threadIdx.x / LANES] = value;
    __syncthreads();
    return warp_sum(threadIdx.x % LANES < ALL / LANES ? sums[threadIdx.x % LANES] : 0.0f);
}

/* VECTOR values at a time, 1 or 4, so that rows of any length work and usual ones are fast. */
template <int VECTOR> struct vector;
template <> struct vector<1> {
    float value[1];
    __device__ void load(const float *from)
    {
        value[0] = *from;
    }
    __device__ void store(float *to) const
    {
        *to = value[0];
    }
    __device__ void load_bf16(const uint16_t *from)
    {
        value[0] = float_of_bf16(*from);
    }
    __device__ void store_bf16(uint16_t *to) const
    {
        *to = bf16_of_float(value[0]);
    }
};
template <> struct vector<4> {
    float value[4];
    __device__ void load(const float *from)
    {
        *(float4 *)value = *(const float4 *)from;
    }
    __device__ void store(float *to) const
    {
        *(float4 *)to = *(const float4 *)value;
    }
    __device__ void load_bf16(const uint16_t *from)
    {
        uint2 pairs = *(const uint2 *)from;

        *(float2 *)value = floats_of_pair(pairs.x);
        *(float2 *)(value + 2) = floats_of_pair(pairs.y);
    }
    __device__ void store_bf16(uint16_t *to) const
    {
        *(uint2 *)to = make_uint2(bf16_pair(value[0], value[1]), bf16_pair(value[2], value[3]));
    }
};

template <int VECTOR>
static __device__ __forceinline__ void add(vector<VECTOR> &to, const vector<VECTOR> &other)
{
    for (int i = 0; i < VECTOR; i++)
        to.value[i] += other.value[i];
}

/* What is added to the residual stream: delta + rest, each unless NULL. */
struct addends {
    const uint16_t *delta, *rest;
};

/* x += delta + rest, of VECTOR columns from `at`. */
template <int VECTOR>
static __device__ __forceinline__ vector<VECTOR> add_delta(float *x, const addends &from,
                                                           int64_t at)
{
    vector<VECTOR> v, delta, rest;

    v.load(x + at);
    if (from.delta == NULL)
        return v;
    delta.load_bf16(from.delta + at);
    if (from.rest != NULL) {
        rest.load_bf16(from.rest + at);
        add(delta, rest);
    }
    add(v, delta);
    v.store(x + at);
    return v;
}

template <int VECTOR> static __device__ __forceinline__ float squares_of(const vector<VECTOR> &v)
{
    float squares = 0;

    for (int i = 0; i < VECTOR; i++)
        squares += v.value[i] * v.value[i];
    return squares;
}

template <int VECTOR>
static __device__ __forceinline__ void store_scaled(uint16_t *out, vector<VECTOR> v,
                                                    const vector<VECTOR> &weight, float scale)
{
    for (int i = 0; i < VECTOR; i++)
        v.value[i] *= scale * weight.value[i];
    v.store_bf16(out);
}

/* The second pass finds the row in the cache. */
template <int VECTOR>
static __global__ void residual_norm(uint16_t *out, float *x, const addends from,
                                     const float *weight, int cols, float eps)
{
    const int64_t row = (int64_t)blockIdx.x * cols;
    float squares = 0;

    chain_let_next_begin();
    chain_wait();
    for (int col = threadIdx.x * VECTOR; col < cols; col += THREADS * VECTOR)
        squares += squares_of(add_delta<VECTOR>(x, from, row + col));
    if (out == NULL)
        return;
    float scale = rsqrtf(block_sum<THREADS>(squares) / (float)cols + eps);
    for (int col = threadIdx.x * VECTOR; col < cols; col += THREADS * VECTOR) {
        vector<VECTOR> v, w;

        v.load(x + row + col);
        w.load(weight + col);
        store_scaled(out + row + col, v, w, scale);
    }
}

/* Few rows, as decode steps have: a thread keeps its columns, and the weights are there before
 * them. */
static __global__ void __launch_bounds__(WIDE_THREADS)
    residual_norm_wide(uint16_t *out, float *x, const addends from, const float *weight, int cols,
                       float eps)
{
    enum { VECTOR = 4 };
    const int64_t row = (int64_t)blockIdx.x * cols;
    const int col = threadIdx.x * VECTOR;
    const bool has_columns = col < cols;
    vector<VECTOR> v = {}, w = {};

    chain_let_next_begin();
    if (has_columns && out != NULL)
        w.load(weight + col);
    chain_wait();
    if (has_columns)
        v = add_delta<VECTOR>(x, from, row + col);
    if (out == NULL)
        return;
    float scale = rsqrtf(block_sum<WIDE_THREADS>(squares_of(v)) / (float)cols + eps);
    if (has_columns)
        store_scaled(out + row + col, v, w, scale);
}

static __device__ __forceinline__ float gated(uint16_t gate, uint16_t up)
{
    float g = float_of_bf16(gate);

    return g / (1.0f + __expf(-g)) * float_of_bf16(up);
}

/* VECTOR columns a thread, 8 or 1; a row's columns are cut into `pieces` blocks. */
template <int VECTOR>
static __global__ void swiglu(uint16_t *out, const uint16_t *gate_up, int cols, int pieces)
{
    const int64_t row = blockIdx.x / pieces;
    const int col = ((int)(blockIdx.x % pieces) * THREADS + (int)threadIdx.x) * VECTOR;
    const uint16_t *gate = gate_up + row * 2 * cols + col;
    const uint16_t *up = gate + cols;
    uint16_t *to = out + row * cols + col;

    chain_let_next_begin();
    chain_wait();
    if (col >= cols)
        return;
    if (VECTOR == 1) {
        *to = bf16_of_float(gated(*gate, *up));
        return;
    }
    uint4 g = *(const uint4 *)gate, u = *(const uint4 *)up, o;
    const uint16_t *gs = (const uint16_t *)&g, *us = (const uint16_t *)&u;
    uint32_t *os = (uint32_t *)&o;

#pragma unroll
    for (int i = 0; i < 4; i++)
        os[i] = bf16_pair(gated(gs[2 * i], us[2 * i]), gated(gs[2 * i + 1], us[2 * i + 1]));
    *(uint4 *)to = o;
}

void cuda_launch_to_bf16(cudaStream_t stream, uint16_t *out, const float *x, int count)
{
    to_bf16<<<(count + THREADS - 1) / THREADS, THREADS, 0, stream>>>(out, x, count);
}

void cuda_launch_dummy(cudaStream_t stream, uint16_t *out, const struct dummy_rows *rows, int cols)
{
    if (rows->rows > 0)
        dummy<<<(unsigned)rows->rows, THREADS, 0, stream>>>(out, *rows, cols);
}

void cuda_launch_embed(cudaStream_t stream, float *out, const uint16_t *table, int table_rows,
                       int cols, const int32_t *ids, int rows, int first_id)
{
    embed<<<rows, THREADS, 0, stream>>>(out, table, table_rows, cols, ids, first_id);
}

void cuda_launch_residual_norm(cudaStream_t stream, uint16_t *out, float *x, const uint16_t *delta,
                               const uint16_t *rest, const float *weight, int rows, int cols,
                               float eps)
{
    const addends from = {delta, rest};

    bool is_aligned =
        ((uintptr_t)out | (uintptr_t)x | (uintptr_t)delta | (uintptr_t)rest | (uintptr_t)weight) %
            16 ==
        0;

    if (cols % 4 == 0 && is_aligned && cols <= 4 * WIDE_THREADS && rows <= WIDE_ROWS_MOST)
        chain_launch(stream, residual_norm_wide, rows, WIDE_THREADS, 0, out, x, from, weight, cols,
                     eps);
    else if (cols % 4 == 0 && is_aligned)
        chain_launch(stream, residual_norm<4>, rows, THREADS, 0, out, x, from, weight, cols, eps);
    else
        chain_launch(stream, residual_norm<1>, rows, THREADS, 0, out, x, from, weight, cols, eps);
}

void cuda_launch_swiglu(cudaStream_t stream, uint16_t *out, const uint16_t *gate_up, int rows,
                        int cols)
{
    const bool is_wide = cols % 8 == 0 && ((uintptr_t)out | (uintptr_t)gate_up) % 16 == 0;
    const int of_block = THREADS * (is_wide ? 8 : 1);
    const int pieces = (cols + of_block - 1) / of_block;
    const unsigned blocks = (unsigned)rows * (unsigned)pieces;

    chain_launch(stream, is_wide ? swiglu<8> : swiglu<1>, blocks, THREADS, 0, out, gate_up, cols,
                 pieces);
}

void cuda_launch_take_rows(cudaStream_t stream, float *out, const float *x, const int32_t *indices,
                           int rows, int cols)
{
    take_rows<<<rows, THREADS, 0, stream>>>(out, x, indices, cols);
}
