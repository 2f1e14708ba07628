/* A thread a line, then the line of a grid's width further: it sends its values to all ranks, waits
 * for theirs and adds them up. No thread waits for another of its GPU. */
#include "comm/nccl/one_shot_kernel.h"
#include "comm/nccl/peer_wait.cuh"
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"

enum { THREADS = 256, BLOCKS_MOST = 64 };

/* The two words of a line. */
struct line {
    uint64_t word[2];
};

static __device__ __forceinline__ void send(line *to, const line &sent)
{
    asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};"
                 :
                 : "l"(to), "l"(sent.word[0]), "l"(sent.word[1])
                 : "memory");
}

static __device__ __forceinline__ line look(const line *from)
{
    line found;

    asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(found.word[0]), "=l"(found.word[1])
                 : "l"(from)
                 : "memory");
    return found;
}

static __device__ __forceinline__ bool is_of(const line &found, uint32_t sequence)
{
    return found.word[0] >> 32 == sequence && found.word[1] >> 32 == sequence;
}

/* The values of a line in the buffer: T is uint16_t, a bf16, or float. */
template <class T> struct values {
    static const int COUNT = ONE_SHOT_LINE_VALUES / sizeof(T);
    union {
        uint2 bits;
        T value[COUNT];
    };
};

/* `left`: elements from `from` to the buffer's end. */
template <class T> static __device__ __forceinline__ values<T> load(const T *from, int left)
{
    values<T> own;

    if (left >= own.COUNT && (uintptr_t)from % sizeof(uint2) == 0) {
        own.bits = *(const uint2 *)from;
        return own;
    }
    own.bits = make_uint2(0, 0);
#pragma unroll
    for (int i = 0; i < own.COUNT; i++)
        if (i < left)
            own.value[i] = from[i];
    return own;
}

template <class T>
static __device__ __forceinline__ void store(T *to, const values<T> &total, int left)
{
    if (left >= total.COUNT && (uintptr_t)to % sizeof(uint2) == 0) {
        *(uint2 *)to = total.bits;
        return;
    }
#pragma unroll
    for (int i = 0; i < total.COUNT; i++)
        if (i < left)
            to[i] = total.value[i];
}

static __device__ __forceinline__ float number(float value)
{
    return value;
}

static __device__ __forceinline__ float number(uint16_t value)
{
    return float_of_bf16(value);
}

static __device__ __forceinline__ void put(float *to, float number)
{
    *to = number;
}

static __device__ __forceinline__ void put(uint16_t *to, float number)
{
    *to = bf16_of_float(number);
}

template <class T>
static __device__ __forceinline__ void send_to_all(const one_shot_args &args, int index)
{
    const int at = index * values<T>::COUNT;
    const values<T> own = load((const T *)args.buf + at, args.count - at);
    const uint64_t mark = (uint64_t)args.sequence << 32;
    const line sent = {{mark | own.bits.x, mark | own.bits.y}};

#pragma unroll
    for (int rank = 0; rank < PEERS_MOST; rank++)
        if (rank < args.ranks && rank != args.rank)
            send((line *)args.to[rank] + index, sent);
}

/* What a rank sends for a line of which `found` was seen last. false: it does not come. */
static __device__ __forceinline__ bool receive(uint2 &bits_out, line found, const line *from,
                                               const one_shot_args &args, patience &own)
{
    while (!is_of(found, args.sequence)) {
        if (is_over(own, args.wait))
            return false;
        found = look(from);
    }
    bits_out = make_uint2((uint32_t)found.word[0], (uint32_t)found.word[1]);
    return true;
}

/* All ranks' lines are asked for before the first is waited for. false: a rank's values did not
 * come, and the buffer keeps this rank's. */
template <class T>
static __device__ __forceinline__ bool sum(const one_shot_args &args, int index, patience &own)
{
    const int at = index * values<T>::COUNT;
    const values<T> part = load((const T *)args.buf + at, args.count - at);
    float sums[values<T>::COUNT] = {};
    line found[PEERS_MOST];
    values<T> total;

#pragma unroll
    for (int rank = 0; rank < PEERS_MOST; rank++)
        if (rank < args.ranks && rank != args.rank)
            found[rank] = look((const line *)args.from[rank] + index);
#pragma unroll
    for (int rank = 0; rank < PEERS_MOST; rank++) {
        values<T> term = part;

        if (rank >= args.ranks)
            break;
        if (rank != args.rank &&
            !receive(term.bits, found[rank], (const line *)args.from[rank] + index, args, own))
            return false;
#pragma unroll
        for (int i = 0; i < term.COUNT; i++)
            sums[i] = rank == 0 ? number(term.value[i]) : sums[i] + number(term.value[i]);
    }
#pragma unroll
    for (int i = 0; i < total.COUNT; i++)
        put(&total.value[i], sums[i]);
    store((T *)args.buf + at, total, args.count - at);
    return true;
}

/* The kernels behind this one may begin at once: what they do before their own wait is to ask for
 * weights, which then come while this one waits for the peers. */
template <class T>
static __global__ void __launch_bounds__(THREADS) one_shot(const one_shot_args args)
{
    const int first = blockIdx.x * THREADS + threadIdx.x, step = gridDim.x * THREADS;
    const int lines = (args.count + values<T>::COUNT - 1) / values<T>::COUNT;
    patience own = {};

    chain_let_next_begin();
    chain_wait();
    for (int index = first; index < lines; index += step)
        send_to_all<T>(args, index);
    for (int index = first; index < lines; index += step)
        if (!sum<T>(args, index, own))
            return;
}

void one_shot_launch(cudaStream_t stream, const struct one_shot_args *args, enum kernel_dtype dtype)
{
    const int of_line = ONE_SHOT_LINE_VALUES / (dtype == KERNEL_F32 ? 4 : 2);
    const int lines = (args->count + of_line - 1) / of_line;
    const int blocks = (lines + THREADS - 1) / THREADS;

    chain_launch(stream, dtype == KERNEL_F32 ? one_shot<float> : one_shot<uint16_t>,
                 blocks < BLOCKS_MOST ? blocks : BLOCKS_MOST, THREADS, 0, *args);
}
