/* Products of few rows by a matrix: bound by reading the matrix once. A warp has OUTPUTS rows of
 * the matrix, its lanes the columns in pieces of 16 bytes. The first pieces are asked for before
 * the inputs are there, the next ones while those before are multiplied. The columns of matrices of
 * few rows are shared by SPLITS warps, so that enough of them read. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/launch.h"

enum {
    LANES = 32,
    WARPS = 8,
    OUTPUTS = 4,
    AHEAD = 2,              /* pieces of a lane and output under way */
    PIECE = 8,              /* elements of 16 bytes */
    SPLIT_ROWS_MOST = 8192, /* matrices of fewer rows have SPLITS warps a row */
};

struct gemv_args {
    void *out;
    const uint16_t *x;      /* [ROWS, in] */
    const uint16_t *weight; /* [outs, in] */
    const float *bias;      /* [outs] or NULL */
    int in, outs;
};

static __device__ __forceinline__ uint4 load_once(const uint16_t *from)
{
    uint4 value;

    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(from));
    return value;
}

static __device__ __forceinline__ void unpack(const uint4 &piece, float (&out)[PIECE])
{
    const uint32_t pairs[PIECE / 2] = {piece.x, piece.y, piece.z, piece.w};

#pragma unroll
    for (int i = 0; i < PIECE / 2; i++) {
        out[2 * i] = __uint_as_float(pairs[i] << 16);
        out[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
}

/* The pieces that a lane has of its warp's matrix rows; zeros beyond the columns. */
struct stage {
    uint4 piece[OUTPUTS];

    __device__ __forceinline__ void load(const uint16_t *const (&rows)[OUTPUTS], int piece_index,
                                         int pieces)
    {
#pragma unroll
        for (int i = 0; i < OUTPUTS; i++)
            piece[i] = piece_index < pieces ? load_once(rows[i] + (int64_t)piece_index * PIECE)
                                            : make_uint4(0, 0, 0, 0);
    }
};

template <int ROWS>
static __device__ __forceinline__ void multiply(float (&sums)[OUTPUTS][ROWS], const stage &weights,
                                                const uint16_t *x, int in)
{
    float inputs[ROWS][PIECE];

#pragma unroll
    for (int row = 0; row < ROWS; row++)
        unpack(*(const uint4 *)(x + (int64_t)row * in), inputs[row]);
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++) {
        float factors[PIECE];

        unpack(weights.piece[i], factors);
#pragma unroll
        for (int row = 0; row < ROWS; row++)
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                sums[i][row] += factors[k] * inputs[row][k];
    }
}

static __device__ __forceinline__ void put(uint16_t *out, float value)
{
    *out = bf16_of_float(value);
}

static __device__ __forceinline__ void put(float *out, float value)
{
    *out = value;
}

/* The sums of SPLITS neighbouring warps, in the first of them. */
template <int ROWS, int SPLITS>
static __device__ __forceinline__ void join_splits(float (&sums)[OUTPUTS][ROWS], int warp, int lane)
{
    __shared__ float parts[WARPS][OUTPUTS * ROWS];

    if (SPLITS == 1)
        return;
    if (lane == 0)
#pragma unroll
        for (int i = 0; i < OUTPUTS * ROWS; i++)
            parts[warp][i] = sums[i / ROWS][i % ROWS];
    __syncthreads();
#pragma unroll
    for (int split = 1; split < SPLITS; split++)
        if (warp % SPLITS == 0)
#pragma unroll
            for (int i = 0; i < OUTPUTS * ROWS; i++)
                sums[i / ROWS][i % ROWS] += parts[warp + split][i];
}

template <int ROWS, int SPLITS, class Out>
static __global__ void __launch_bounds__(WARPS *LANES) gemv(const gemv_args args)
{
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int first = (blockIdx.x * WARPS + warp) / SPLITS * OUTPUTS;
    const int first_piece = warp % SPLITS * LANES + lane;
    const int pieces = args.in / PIECE;
    const uint16_t *rows[OUTPUTS];
    stage ahead[AHEAD];
    float sums[OUTPUTS][ROWS] = {};

#pragma unroll
    for (int i = 0; i < OUTPUTS; i++)
        rows[i] = args.weight + (int64_t)min(first + i, args.outs - 1) * args.in;
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        ahead[i].load(rows, first_piece + i * SPLITS * LANES, pieces);
    chain_wait();
    for (int at = first_piece; at < pieces; at += AHEAD * SPLITS * LANES) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const stage weights = ahead[i];
            const int piece = at + i * SPLITS * LANES;

            ahead[i].load(rows, piece + AHEAD * SPLITS * LANES, pieces);
            if (piece < pieces)
                multiply<ROWS>(sums, weights, args.x + piece * PIECE, args.in);
        }
    }
    chain_let_next_begin(); /* not before: two matrices read at once are read slower */
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++)
#pragma unroll
        for (int row = 0; row < ROWS; row++)
            sums[i][row] = warp_sum(sums[i][row]);
    join_splits<ROWS, SPLITS>(sums, warp, lane);
    if (lane != 0 || warp % SPLITS != 0)
        return;
#pragma unroll
    for (int i = 0; i < OUTPUTS; i++)
#pragma unroll
        for (int row = 0; row < ROWS; row++)
            if (first + i < args.outs)
                put((Out *)args.out + (int64_t)row * args.outs + first + i,
                    sums[i][row] + (args.bias != NULL ? args.bias[first + i] : 0.0f));
}

template <int ROWS, int SPLITS>
static void start_splits(cudaStream_t stream, const gemv_args &args, enum kernel_dtype out_dtype)
{
    const int outputs = WARPS / SPLITS * OUTPUTS;
    const unsigned blocks = (unsigned)((args.outs + outputs - 1) / outputs);

    if (out_dtype == KERNEL_F32)
        chain_launch(stream, gemv<ROWS, SPLITS, float>, blocks, WARPS * LANES, 0, args);
    else
        chain_launch(stream, gemv<ROWS, SPLITS, uint16_t>, blocks, WARPS * LANES, 0, args);
}

template <int ROWS>
static void start(cudaStream_t stream, const gemv_args &args, enum kernel_dtype out_dtype)
{
    if (args.outs < SPLIT_ROWS_MOST)
        start_splits<ROWS, 2>(stream, args, out_dtype);
    else
        start_splits<ROWS, 1>(stream, args, out_dtype);
}

bool cuda_gemv_takes(const struct matmul_shape *shape)
{
    return shape->rows <= GEMV_ROWS_MOST && shape->in % PIECE == 0 && shape->alignment >= 16;
}

void cuda_launch_gemv(cudaStream_t stream, void *out, const struct matmul_shape *shape,
                      const uint16_t *x, const uint16_t *weight, const float *bias)
{
    const gemv_args args = {out, x, weight, bias, shape->in, shape->out};

    switch (shape->rows) {
    case 1:
        return start<1>(stream, args, shape->out_dtype);
    case 2:
        return start<2>(stream, args, shape->out_dtype);
    case 3:
        return start<3>(stream, args, shape->out_dtype);
    default:
        return start<4>(stream, args, shape->out_dtype);
    }
}
