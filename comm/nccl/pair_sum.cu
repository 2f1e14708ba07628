/* Blocks wait for the peer's copy, then each thread adds pieces of 16 bytes. */
#include "comm/nccl/pair_sum_kernel.h"
#include "comm/nccl/peer_wait.cuh"
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

enum { THREADS = 256, BLOCKS_MOST = 2048 };

static __device__ __forceinline__ uint32_t number_at(const uint32_t *number)
{
    uint32_t found;

    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(found) : "l"(number) : "memory");
    return found;
}

static __device__ __forceinline__ uint32_t add_pair(uint32_t a, uint32_t b)
{
    const float2 of_a = floats_of_pair(a), of_b = floats_of_pair(b);

    return bf16_pair(of_a.x + of_b.x, of_a.y + of_b.y);
}

static __device__ __forceinline__ uint32_t add_float(uint32_t a, uint32_t b)
{
    return __float_as_uint(__uint_as_float(a) + __uint_as_float(b));
}

template <bool IS_F32> static __device__ __forceinline__ uint32_t add(uint32_t a, uint32_t b)
{
    return IS_F32 ? add_float(a, b) : add_pair(a, b);
}

/* Elements behind the last whole piece. */
template <class T>
static __device__ void add_rest(T *buf, const T *arrived, size_t first, size_t count)
{
    const size_t i = first + threadIdx.x;

    if (blockIdx.x != 0 || i >= count)
        return;
    if constexpr (sizeof(T) == sizeof(float))
        buf[i] += __ldcg(arrived + i);
    else
        buf[i] = bf16_of_float(float_of_bf16(buf[i]) + float_of_bf16(__ldcg(arrived + i)));
}

/* false: it does not come. */
static __device__ bool await_peer(const pair_sum_args &args)
{
    patience own = {};

    while ((int32_t)(number_at(args.number) - args.wanted) < 0)
        if (is_over(own, args.wait))
            return false;
    return true;
}

static __global__ void pair_wait(const pair_sum_args args)
{
    chain_let_next_begin();
    chain_wait();
    (void)await_peer(args);
}

template <class T>
static __global__ void __launch_bounds__(THREADS) pair_sum(const pair_sum_args args)
{
    constexpr bool IS_F32 = sizeof(T) == sizeof(float);
    constexpr size_t OF_PIECE = sizeof(uint4) / sizeof(T);
    const size_t pieces = args.count / OF_PIECE;
    uint4 *buf = (uint4 *)args.buf;
    const uint4 *arrived = (const uint4 *)args.arrived;
    __shared__ bool has_come;

    chain_let_next_begin();
    chain_wait();
    if (threadIdx.x == 0)
        has_come = await_peer(args);
    __syncthreads();
    if (!has_come)
        return;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < pieces;
         i += (size_t)gridDim.x * THREADS) {
        const uint4 a = buf[i], b = __ldcg(arrived + i);

        buf[i] = make_uint4(add<IS_F32>(a.x, b.x), add<IS_F32>(a.y, b.y), add<IS_F32>(a.z, b.z),
                            add<IS_F32>(a.w, b.w));
    }
    add_rest((T *)args.buf, (const T *)args.arrived, pieces * OF_PIECE, args.count);
}

template <class T> static void start(cudaStream_t stream, const struct pair_sum_args *args)
{
    const size_t of_block = THREADS * sizeof(uint4) / sizeof(T);
    const size_t blocks = (args->count + of_block - 1) / of_block;

    chain_launch(stream, pair_sum<T>, (unsigned)min(blocks, (size_t)BLOCKS_MOST), THREADS, 0,
                 *args);
}

void pair_sum_launch(cudaStream_t stream, const struct pair_sum_args *args, enum kernel_dtype dtype)
{
    if (dtype == KERNEL_F32)
        start<float>(stream, args);
    else
        start<uint16_t>(stream, args);
}

void pair_sum_launch_wait(cudaStream_t stream, const struct pair_sum_args *args)
{
    chain_launch(stream, pair_wait, 1, 1, 0, *args);
}
