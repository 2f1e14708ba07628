/* Rotary positions: the step's table of angles, one thread an angle, and the split of a fused
 * projection into rotated queries and appended keys and values, one warp a head of a token. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/launch.h"

enum { THREADS = 256, WARPS = THREADS / 32, TWOS_MOST = 2 /* of a lane: 256 / 2 / 32 / 2 */ };

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
    struct qk_norm norm;
};

/* A lane holds the pairs 2 lane and 2 lane + 1, and those 64 further: half a head is a multiple of 4. */
static __device__ void turn(const append_args &args, const uint16_t *in, uint16_t *out,
                            const float *weight, const float2 *table, int lane)
{
    int half = args.head_dim / 2;
    float2 low[TWOS_MOST], high[TWOS_MOST];
    float squares = 0, scale = 1;

#pragma unroll
    for (int i = 0; i < TWOS_MOST; i++) {
        int pair = 2 * (lane + 32 * i);

        low[i] = high[i] = make_float2(0, 0);
        if (pair < half) {
            low[i] = floats_of_pair(*(const uint32_t *)(in + pair));
            high[i] = floats_of_pair(*(const uint32_t *)(in + half + pair));
        }
        squares += low[i].x * low[i].x + high[i].x * high[i].x;
        squares += low[i].y * low[i].y + high[i].y * high[i].y;
    }
    if (weight != NULL)
        scale = rsqrtf(warp_sum(squares) / (float)args.head_dim + args.norm.eps);
#pragma unroll
    for (int i = 0; i < TWOS_MOST; i++) {
        int pair = 2 * (lane + 32 * i);

        if (pair >= half)
            continue;
        if (weight != NULL) {
            low[i].x *= scale * weight[pair];
            low[i].y *= scale * weight[pair + 1];
            high[i].x *= scale * weight[half + pair];
            high[i].y *= scale * weight[half + pair + 1];
        }
        const float4 angles = *(const float4 *)(table + pair);
        *(uint32_t *)(out + pair) = bf16_pair(low[i].x * angles.x - high[i].x * angles.y,
                                              low[i].y * angles.z - high[i].y * angles.w);
        *(uint32_t *)(out + half + pair) = bf16_pair(high[i].x * angles.x + low[i].x * angles.y,
                                                     high[i].y * angles.z + low[i].y * angles.w);
    }
}

static __global__ void rope_append(const __grid_constant__ rope_appends appends,
                                   const append_args args)
{
    int heads = args.q_heads + 2 * args.kv_heads;
    int64_t job = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int head = (int)(job % heads);
    int index = (int)(job / heads); /* of the token within all appends */
    int lane = threadIdx.x % 32;
    int which = 0;

    chain_let_next_begin();
    chain_wait();
    if (index >= appends.tokens)
        return;
    while (index >= appends.append[which].tokens)
        index -= appends.append[which++].tokens;
    const kv_append &append = appends.append[which];
    int64_t token = (int64_t)append.first_token + index;
    const uint16_t *in = args.qkv + (token * heads + head) * args.head_dim;
    const float2 *table = args.rope + token * (args.head_dim / 2);

    if (head < args.q_heads) {
        uint16_t *out = args.q + (token * args.q_heads + head) * args.head_dim;

        turn(args, in, out, args.norm.q, table, lane);
        return;
    }
    head -= args.q_heads;
    int64_t at =
        (head % args.kv_heads) * append.head_stride + (append.first_row + index) * args.head_dim;
    if (head < args.kv_heads) {
        turn(args, in, append.k + at, args.norm.k, table, lane);
        return;
    }
    for (int i = 2 * lane; i < args.head_dim; i += 64)
        *(uint32_t *)(append.v + at + i) = *(const uint32_t *)(in + i);
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
    int64_t jobs = (int64_t)appends->tokens * (shape->q_heads + 2 * shape->kv_heads);
    unsigned blocks = (unsigned)((jobs + WARPS - 1) / WARPS);
    append_args args = {q_out,
                        qkv,
                        (const float2 *)rope,
                        shape->q_heads,
                        shape->kv_heads,
                        shape->head_dim,
                        norm != NULL ? *norm : qk_norm()};

    chain_launch(stream, rope_append, blocks, THREADS, 0, *appends, args);
}
