/* Selection on the device, to the bit what kernels/select.c selects.
 *
 * A rule first marks, a bit a token, what it chooses between sinks and window; then the marks,
 * sinks and window are listed in rising order. Marking the largest scores and listing are done by
 * a cluster of blocks for every head, each with a slice of the elements: the cluster agrees on the
 * threshold digit by digit (radix selection), reading each other's histograms, and on the places
 * of ties and of list entries by each other's counts. */
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/tca_launch.h"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

enum {
    DIGIT_BITS = 8,
    DIGITS = 1 << DIGIT_BITS,
    PASSES = 32 / DIGIT_BITS,
    BLOCK = SELECT_BLOCK_TOKENS,
    BLOCK_WORDS = BLOCK / 32
};

/* As in select.c: NaN and negative scores count as 0. */
static __device__ __forceinline__ uint32_t score_key(float score)
{
    return score > 0.0f ? __float_as_uint(score) : 0;
}

/* The largest score of the 33 tokens around `first` + lane: of those before first + 16 the running
 * maximum from the right, of the others from the left. */
static __device__ uint32_t pooled_key(const float *scores, int tokens, int first)
{
    int lane = threadIdx.x % LANES;
    int left = first - SELECT_POOL_RADIUS + lane, right = first + SELECT_POOL_RADIUS + lane;
    uint32_t from_right = left < tokens ? score_key(scores[left]) : 0;
    uint32_t from_left = right < tokens ? score_key(scores[right]) : 0;

    static_assert(2 * SELECT_POOL_RADIUS == LANES, "two warps' worth of tokens");
    for (int offset = 1; offset < LANES; offset *= 2) {
        uint32_t higher = __shfl_down_sync(ALL_LANES, from_right, offset);
        uint32_t lower = __shfl_up_sync(ALL_LANES, from_left, offset);

        from_right = lane + offset < LANES ? max(from_right, higher) : from_right;
        from_left = lane >= offset ? max(from_left, lower) : from_left;
    }
    return max(from_right, from_left);
}

static __device__ void make_keys(uint32_t *keys, const select_launch &launch, int head, slice own)
{
    const float *masses = launch.block_masses + (int64_t)head * launch.blocks;
    const float *scores = launch.token_scores + (int64_t)head * launch.tokens;

    for (int i = own.first + (int)threadIdx.x; i - (int)threadIdx.x % LANES < own.end;
         i += THREADS) {
        uint32_t key = launch.rule == SELECT_BLOCK
                           ? (i < own.end ? score_key(masses[1 + i]) : 0)
                           : pooled_key(scores, launch.tokens, BLOCK + i - threadIdx.x % LANES);

        if (i < own.end)
            keys[i] = key;
    }
}

/* Where radix selection stands: digits found so far, and how many elements of exactly those digits
 * are still to be taken. */
struct threshold {
    uint32_t key, mask;
    int ties;
};

struct select_shared {
    int histogram[PASSES][DIGITS]; /* of the own slice */
    int total[DIGITS];             /* of the cluster */
    int counts[2][WARPS];
    int digit, ties;
};

/* The digit in which the ties-th largest lies: warp 0, 8 digits a lane, from the top. */
static __device__ void find_digit(select_shared &shared, int ties)
{
    int lane = threadIdx.x % LANES;
    int top = DIGITS - 1 - lane * (DIGITS / LANES);
    int own = 0;

    for (int i = 0; i < DIGITS / LANES; i++)
        own += shared.total[top - i];
    int with = own;
    for (int offset = 1; offset < LANES; offset *= 2) {
        int lower = __shfl_up_sync(ALL_LANES, with, offset);

        with += lane >= offset ? lower : 0;
    }
    int left = ties - (with - own);
    if (left <= 0 || left > own)
        return;
    while (shared.total[top] < left)
        left -= shared.total[top--];
    shared.digit = top;
    shared.ties = left;
}

/* All blocks of the cluster find the same. count: 1 .. elements. */
static __device__ threshold find_threshold(cg::cluster_group &cluster, select_shared &shared,
                                           const uint32_t *keys, slice own, int count)
{
    threshold found = {0, 0, count};

    for (int pass = 0; pass < PASSES; pass++) {
        int shift = 32 - DIGIT_BITS * (pass + 1);

        for (int i = own.first + (int)threadIdx.x; i < own.end; i += THREADS) {
            uint32_t key = keys[i];

            if ((key & found.mask) == found.key)
                atomicAdd(&shared.histogram[pass][key >> shift & (DIGITS - 1)], 1);
        }
        cluster.sync();
        if (threadIdx.x < DIGITS) {
            int total = 0;

            for (int rank = 0; rank < CLUSTER; rank++)
                total += cluster.map_shared_rank(shared.histogram[pass], rank)[threadIdx.x];
            shared.total[threadIdx.x] = total;
        }
        __syncthreads();
        if (threadIdx.x < LANES)
            find_digit(shared, found.ties);
        __syncthreads();
        found.key |= (uint32_t)shared.digit << shift;
        found.mask |= (uint32_t)(DIGITS - 1) << shift;
        found.ties = shared.ties;
    }
    return found;
}

/* How many elements equal to the threshold lie in the slices before the own one. */
static __device__ int ties_before(cg::cluster_group &cluster, select_shared &shared,
                                  const threshold &found)
{
    int *last = shared.histogram[PASSES - 1];
    int before = 0;

    for (unsigned rank = 0; rank < cluster.block_rank(); rank++)
        before += cluster.map_shared_rank(last, rank)[found.key & (DIGITS - 1)];
    return before;
}

static __device__ void write_marks(const select_launch &launch, uint32_t *marks, int element,
                                   bool is_taken)
{
    unsigned votes = __ballot_sync(ALL_LANES, is_taken);

    if (launch.rule == SELECT_BLOCK) {
        if (element < launch.last_block - 1)
            for (int i = 0; i < BLOCK_WORDS; i++)
                marks[(1 + element) * BLOCK_WORDS + i] = is_taken ? ~0u : 0;
    } else if (threadIdx.x % LANES == 0 && element < (launch.last_block - 1) * BLOCK) {
        marks[(BLOCK + element) / 32] = votes;
    }
}

/* Mark the elements of the own slice that are above the threshold, and the first of those at it. */
static __device__ void mark_slice(select_shared &shared, const select_launch &launch,
                                  uint32_t *marks, const uint32_t *keys, slice own,
                                  const threshold &found, int before)
{
    int turn = 0;

    for (int first = own.first; first < own.end; first += THREADS, turn ^= 1) {
        int i = first + threadIdx.x;
        uint32_t key = i < own.end ? keys[i] : 0;
        bool is_tie = i < own.end && key == found.key;
        unsigned votes = __ballot_sync(ALL_LANES, is_tie);
        int all;

        if (threadIdx.x % LANES == 0)
            shared.counts[turn][threadIdx.x / LANES] = __popc(votes);
        __syncthreads();
        int place = before + warps_before(shared.counts[turn], &all) + lanes_before(votes);
        write_marks(launch, marks, i,
                    i < own.end && (key > found.key || (is_tie && place < found.ties)));
        before += all;
    }
}

static __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    mark_largest(const __grid_constant__ select_launch launch)
{
    __shared__ select_shared shared;
    cg::cluster_group cluster = cg::this_cluster();
    const int head = blockIdx.x / CLUSTER;
    const select_head &plan = launch.head[head];
    const int count =
        launch.rule == SELECT_BLOCK ? launch.last_block - 1 : launch.last_token - BLOCK;
    const slice own = own_slice(count, cluster.block_rank());
    uint32_t *keys = launch.keys + head * launch.key_stride;
    uint32_t *marks = launch.marks + (int64_t)head * launch.blocks * BLOCK_WORDS;
    threshold found = {0, 0, count}; /* everything */
    int before = 0;

    chain_let_next_begin();
    chain_wait();
    for (int i = threadIdx.x; i < PASSES * DIGITS; i += THREADS)
        (&shared.histogram[0][0])[i] = 0;
    if (!plan.is_empty && !plan.is_whole)
        make_keys(keys, launch, head, own);
    __syncthreads();
    if (plan.is_empty || plan.is_whole)
        return; /* the whole cluster does */
    if (plan.largest <= 0) {
        found = {~0u, ~0u, 0};
    } else if (plan.largest < count) {
        found = find_threshold(cluster, shared, keys, own, plan.largest);
        before = ties_before(cluster, shared, found);
    }
    mark_slice(shared, launch, marks, keys, own, found, before);
    cluster.sync(); /* nobody reads this block's histograms any more */
}

enum { TCA_THREADS = 256 };

/* Simpson index of a block in double, in the order of select.c. */
static __device__ float simpson(const float *scores, int count)
{
    double sum = 0, squares = 0;

    for (int i = 0; i < count; i++) {
        double score = scores[i] > 0.0f ? (double)scores[i] : 0.0;

        sum = __dadd_rn(sum, score);
        squares = __dadd_rn(squares, __dmul_rn(score, score));
    }
    return sum > 0 ? (float)__ddiv_rn(squares, __dmul_rn(sum, sum)) : 1.0f;
}

/* A block's key: the larger, the more of it is kept. */
static __global__ void tca_keys(const __grid_constant__ select_launch launch)
{
    int head = blockIdx.y;
    int element = blockIdx.x * TCA_THREADS + threadIdx.x;
    int block = 1 + element;
    const float *scores = launch.token_scores + (int64_t)head * launch.tokens;
    const float *masses = launch.block_masses + (int64_t)head * launch.blocks;

    if (block >= launch.last_block)
        return;
    launch.keys[head * launch.key_stride + element] =
        launch.redundancy == SELECT_REDUNDANCY_SIMPSON
            ? ~score_key(
                  simpson(scores + block * BLOCK, min((int)BLOCK, launch.tokens - block * BLOCK)))
            : score_key(masses[block]);
}

/* Tokens that the block of rank `rank` (0: the most valuable) keeps. */
static __device__ int tca_count(const select_head &plan, int rank)
{
    int size = 0;
    int spent = min(rank, plan.tca_ends[0]); /* by the blocks before it */

    for (int k = 1; k < SELECT_TCA_SIZES; k++) {
        size = rank < plan.tca_ends[k] ? k : size;
        spent += (1 << (k - 1)) * min(rank, plan.tca_ends[k]);
    }
    return max(min(1 << size, plan.left - spent), 0);
}

/* Mark the `count` largest scores of one block: one warp, two tokens a lane. */
static __device__ void mark_in_block(uint32_t *marks, const float *scores, int tokens, int count)
{
    int lane = threadIdx.x % LANES;
    uint32_t key[BLOCK_WORDS];
    int place[BLOCK_WORDS] = {};

    for (int i = 0; i < BLOCK_WORDS; i++)
        key[i] = i * LANES + lane < tokens ? score_key(scores[i * LANES + lane]) : 0;
    for (int j = 0; j < BLOCK; j++) {
        uint32_t other = __shfl_sync(ALL_LANES, key[j / LANES], j % LANES);

        if (j < tokens)
            for (int i = 0; i < BLOCK_WORDS; i++)
                place[i] += other > key[i] || (other == key[i] && j < i * LANES + lane);
    }
    for (int i = 0; i < BLOCK_WORDS; i++) {
        unsigned votes = __ballot_sync(ALL_LANES, place[i] < count && i * LANES + lane < tokens);

        if (lane == 0)
            marks[i] = votes;
    }
}

/* TCA_THREADS blocks of a head: their ranks by counting those that come before, which is quadratic
 * but, at 16,384 blocks of a million tokens, still far below the scores' time. */
static __global__ void __launch_bounds__(TCA_THREADS)
    tca_marks(const __grid_constant__ select_launch launch)
{
    __shared__ uint32_t others[TCA_THREADS];
    __shared__ int counts[TCA_THREADS];
    const int head = blockIdx.y;
    const select_head &plan = launch.head[head];
    const int elements = launch.last_block - 1;
    const int element = blockIdx.x * TCA_THREADS + threadIdx.x;
    const uint32_t *keys = launch.keys + head * launch.key_stride;
    const uint32_t key = element < elements ? keys[element] : 0;
    int rank = 0;

    if (plan.is_empty || plan.is_whole)
        return;
    for (int first = 0; first < elements; first += TCA_THREADS) {
        __syncthreads();
        if (first + (int)threadIdx.x < elements)
            others[threadIdx.x] = keys[first + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < min((int)TCA_THREADS, elements - first); i++)
            rank += others[i] > key || (others[i] == key && first + i > element);
    }
    counts[threadIdx.x] = element < elements ? tca_count(plan, rank) : 0;
    __syncthreads();
    for (int i = threadIdx.x / LANES; i < TCA_THREADS; i += TCA_THREADS / LANES) {
        int block = 1 + blockIdx.x * TCA_THREADS + i;

        if (block >= launch.last_block)
            break;
        mark_in_block(launch.marks + ((int64_t)head * launch.blocks + block) * BLOCK_WORDS,
                      launch.token_scores + (int64_t)head * launch.tokens + block * BLOCK,
                      min((int)BLOCK, launch.tokens - block * BLOCK), counts[i]);
    }
}

/* Bits at and above token `first`, of those of word `word`. */
static __device__ __forceinline__ uint32_t bits_from(int first, int word)
{
    int bit = first - word * 32;

    return bit <= 0 ? ~0u : bit >= 32 ? 0 : ~0u << bit;
}

/* What a head keeps of 32 tokens. */
static __device__ uint32_t kept_word(const select_launch &launch, const select_head &plan,
                                     const uint32_t *marks, int word)
{
    uint32_t kept = bits_from(plan.window_first, word);

    if (word < BLOCK_WORDS || plan.is_whole)
        kept = ~0u;
    else if (launch.rule != SELECT_WINDOW && word < launch.last_block * BLOCK_WORDS)
        kept |= marks[word];
    return kept & ~bits_from(launch.tokens, word);
}

struct list_shared {
    uint32_t word[THREADS];
    int place[THREADS];
    int counts[2][WARPS];
    int total; /* kept tokens of the own slice */
};

/* List the slice's tokens from kept[place] on. */
static __device__ void list_slice(list_shared &shared, const select_launch &launch,
                                  const select_head &plan, const uint32_t *marks, slice own,
                                  int32_t *kept, int place)
{
    int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, turn = 0;

    for (int first = own.first; first < own.end; first += THREADS, turn ^= 1) {
        int i = first + threadIdx.x;
        uint32_t word = i < own.end ? kept_word(launch, plan, marks, i) : 0;
        int with = __popc(word);
        int all;

        for (int offset = 1; offset < LANES; offset *= 2) {
            int lower = __shfl_up_sync(ALL_LANES, with, offset);

            with += lane >= offset ? lower : 0;
        }
        if (lane == LANES - 1)
            shared.counts[turn][warp] = with;
        __syncthreads();
        shared.word[threadIdx.x] = word;
        shared.place[threadIdx.x] =
            place + warps_before(shared.counts[turn], &all) + with - __popc(word);
        __syncwarp();
        for (int j = warp * LANES; j < (warp + 1) * LANES; j++)
            if (shared.word[j] >> lane & 1)
                kept[shared.place[j] + lanes_before(shared.word[j])] = (first + j) * 32 + lane;
        __syncwarp();
        place += all;
    }
}

static __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    list_kept(const __grid_constant__ select_launch launch)
{
    __shared__ list_shared shared;
    cg::cluster_group cluster = cg::this_cluster();
    const int head = blockIdx.x / CLUSTER, rank = cluster.block_rank();
    const select_head &plan = launch.head[head];
    const slice own = own_slice((launch.tokens + 31) / 32, rank);
    const uint32_t *marks = launch.marks + (int64_t)head * launch.blocks * BLOCK_WORDS;
    int count = 0, before = 0;

    chain_let_next_begin();
    chain_wait();
    if (plan.is_empty) {
        if (rank == 0 && threadIdx.x == 0)
            launch.counts_out[head] = 0;
        return; /* the whole cluster does */
    }
    if (threadIdx.x == 0)
        shared.total = 0;
    __syncthreads();
    for (int i = own.first + (int)threadIdx.x; i < own.end; i += THREADS)
        count += __popc(kept_word(launch, plan, marks, i));
    count = __reduce_add_sync(ALL_LANES, count);
    if (threadIdx.x % LANES == 0)
        atomicAdd(&shared.total, count);
    cluster.sync();
    for (int i = 0; i < rank; i++)
        before += *cluster.map_shared_rank(&shared.total, i);
    list_slice(shared, launch, plan, marks, own, launch.kept_out + head * launch.kept_stride,
               before);
    if (rank == CLUSTER - 1 && threadIdx.x == 0)
        launch.counts_out[head] = before + shared.total;
    cluster.sync(); /* nobody reads this block's total any more */
}

void cuda_launch_select(cudaStream_t stream, const struct select_launch *launch)
{
    bool has_choice = launch->last_block > 1;
    dim3 blocks((launch->last_block - 1 + TCA_THREADS - 1) / TCA_THREADS, launch->heads);

    if (has_choice && launch->rule == SELECT_TCA) {
        tca_keys<<<blocks, TCA_THREADS, 0, stream>>>(*launch);
        tca_marks<<<blocks, TCA_THREADS, 0, stream>>>(*launch);
    } else if (has_choice && (launch->rule == SELECT_BLOCK || launch->rule == SELECT_POOLED)) {
        chain_launch(stream, mark_largest, launch->heads * CLUSTER, THREADS, 0, *launch);
    }
    chain_launch(stream, list_kept, launch->heads * CLUSTER, THREADS, 0, *launch);
}
