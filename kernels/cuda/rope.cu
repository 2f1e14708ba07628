/* Rotary positions: the step's table of angles, one thread an angle, and the split of a fused
 * projection into rotated queries and appended keys and values. A thread of the latter has four
 * pairs of several heads of a token, whose angles it reads once. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/launch.h"

enum { THREADS = 256, PAIRS = 4 /* half a head is a multiple of it */ };

/* From so many tokens on a block turns all heads of its token. */
enum { TOKENS_MANY = 256 };

static __global__ void rope_table(float2 *table, const int32_t *positions, int64_t count,
                                  const float *inv_freq, int half, float magnitude)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    double sine, cosine;

    if (i >= count)
        return;
    /* The rounding of the f32 product is what Hugging Face's models were run with. */
    sincos((double)__fmul_rn((float)positions[i / half], inv_freq[i % half]), &sine, &cosine);
    table[i] = make_float2((float)cosine * magnitude, (float)sine * magnitude);
}

struct append_args {
    uint16_t *q;
    const uint16_t *qkv;
    const float2 *rope; /* [tokens, head_dim / 2] */
    int q_heads, kv_heads, head_dim;
    int lane_bits; /* 2^lane_bits threads have a head */
    struct qk_norm norm;
};

/* A thread's pairs of a head: their first halves, and their second. */
struct pairs {
    float2 low[PAIRS / 2], high[PAIRS / 2];
};

/* Where a head goes, and what becomes of it. */
struct head_place {
    const uint16_t *in;
    uint16_t *out;
    const float *norm; /* [head_dim]; NULL: none */
    bool is_turned;
};

static __device__ __forceinline__ head_place place_of(const append_args &args,
                                                      const kv_append &append, int64_t token,
                                                      int index, int head)
{
    const int heads = args.q_heads + 2 * args.kv_heads;
    head_place place = {args.qkv + (token * heads + head) * args.head_dim, NULL, NULL, true};
    int64_t at = (append.first_row + index) * args.head_dim;

    if (head < args.q_heads) {
        place.out = args.q + (token * args.q_heads + head) * args.head_dim;
        place.norm = args.norm.q;
        return place;
    }
    head -= args.q_heads;
    at += head % args.kv_heads * append.head_stride;
    place.is_turned = head < args.kv_heads;
    place.out = (place.is_turned ? append.k : append.v) + at;
    place.norm = place.is_turned ? args.norm.k : NULL;
    return place;
}

static __device__ __forceinline__ void load_twos(float2 (&twos)[PAIRS / 2], const uint16_t *from)
{
    const uint2 raw = *(const uint2 *)from;

    twos[0] = floats_of_pair(raw.x);
    twos[1] = floats_of_pair(raw.y);
}

static __device__ __forceinline__ void store_twos(uint16_t *to, const float2 (&twos)[PAIRS / 2])
{
    *(uint2 *)to = make_uint2(bf16_pair(twos[0].x, twos[0].y), bf16_pair(twos[1].x, twos[1].y));
}

static __device__ __forceinline__ void scale_twos(float2 (&twos)[PAIRS / 2], float scale,
                                                  const float *weight)
{
    for (int i = 0; i < PAIRS / 2; i++) {
        twos[i].x *= scale * weight[2 * i];
        twos[i].y *= scale * weight[2 * i + 1];
    }
}

/* RMS norm of the head whose pairs the 2^lane_bits threads have; all of a
 * warp's threads call it. */
static __device__ __forceinline__ void norm_head(pairs &p, const float *weight, bool has_pairs,
                                                 int first_pair, const append_args &args)
{
    float squares = 0;

    for (int i = 0; i < PAIRS / 2; i++) {
        squares += p.low[i].x * p.low[i].x + p.low[i].y * p.low[i].y;
        squares += p.high[i].x * p.high[i].x + p.high[i].y * p.high[i].y;
    }
    for (int offset = 1 << args.lane_bits >> 1; offset > 0; offset /= 2)
        squares += __shfl_xor_sync(0xffffffffu, squares, offset);
    if (weight == NULL || !has_pairs)
        return;
    const float scale = rsqrtf(squares / (float)args.head_dim + args.norm.eps);
    scale_twos(p.low, scale, weight + first_pair);
    scale_twos(p.high, scale, weight + args.head_dim / 2 + first_pair);
}

static __device__ __forceinline__ void turn(pairs &p, const float4 (&angles)[PAIRS / 2])
{
    for (int i = 0; i < PAIRS / 2; i++) {
        const float2 low = p.low[i], high = p.high[i];

        p.low[i] = make_float2(low.x * angles[i].x - high.x * angles[i].y,
                               low.y * angles[i].z - high.y * angles[i].w);
        p.high[i] = make_float2(high.x * angles[i].x + low.x * angles[i].y,
                                high.y * angles[i].z + low.y * angles[i].w);
    }
}

/* Blocks of one x have a token, those of one y some of its heads. */
static __global__ void __launch_bounds__(THREADS)
    rope_append(const __grid_constant__ rope_appends appends, const append_args args)
{
    const int half = args.head_dim / 2, heads = args.q_heads + 2 * args.kv_heads;
    const int group = threadIdx.x >> args.lane_bits, groups = THREADS >> args.lane_bits;
    const int first_pair = (threadIdx.x - (group << args.lane_bits)) * PAIRS;
    const bool has_norm = args.norm.q != NULL;
    int index = blockIdx.x; /* of the token within all appends, then within its own */
    int which = 0;

    chain_let_next_begin();
    chain_wait();
    while (index >= appends.append[which].tokens)
        index -= appends.append[which++].tokens;
    const kv_append &append = appends.append[which];
    const int64_t token = (int64_t)append.first_token + index;
    float4 angles[PAIRS / 2] = {};

    if (first_pair < half)
        for (int i = 0; i < PAIRS / 2; i++)
            angles[i] = *(const float4 *)(args.rope + token * half + first_pair + 2 * i);
    for (int first = blockIdx.y * groups; first < heads; first += gridDim.y * groups) {
        const int head = first + group;
        const bool has_pairs = head < heads && first_pair < half;
        const head_place place = place_of(args, append, token, index, has_pairs ? head : 0);
        pairs p = {};

        if (has_pairs) {
            load_twos(p.low, place.in + first_pair);
            load_twos(p.high, place.in + half + first_pair);
        }
        if (has_norm)
            norm_head(p, place.norm, has_pairs, first_pair, args);
        if (place.is_turned)
            turn(p, angles);
        if (has_pairs) {
            store_twos(place.out + first_pair, p.low);
            store_twos(place.out + half + first_pair, p.high);
        }
    }
}

void cuda_launch_rope_table(cudaStream_t stream, float *table_out, const int32_t *positions,
                            int rows, const float *inv_freq, int half, float magnitude)
{
    int64_t count = (int64_t)rows * half;
    unsigned blocks = (unsigned)((count + THREADS - 1) / THREADS);

    rope_table<<<blocks, THREADS, 0, stream>>>((float2 *)table_out, positions, count, inv_freq,
                                               half, magnitude);
}

void cuda_launch_rope_append(cudaStream_t stream, uint16_t *q_out,
                             const struct rope_appends *appends, const uint16_t *qkv,
                             const struct attention_shape *shape, const float *rope,
                             const struct qk_norm *norm)
{
    const int heads = shape->q_heads + 2 * shape->kv_heads;
    append_args args = {q_out,
                        qkv,
                        (const float2 *)rope,
                        shape->q_heads,
                        shape->kv_heads,
                        shape->head_dim,
                        0,
                        norm != NULL ? *norm : qk_norm()};

    while (2 * PAIRS << args.lane_bits < shape->head_dim)
        args.lane_bits++;
    const int groups = THREADS >> args.lane_bits;
    const dim3 grid(appends->tokens,
                    appends->tokens < TOKENS_MANY ? (heads + groups - 1) / groups : 1);

    chain_launch(stream, rope_append, grid, THREADS, 0, *appends, args);
}
