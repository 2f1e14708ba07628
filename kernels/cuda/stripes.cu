/* Between the order of a sequence and that of its stripes. A value is one thread's; picking is done
 * by a cluster of blocks, each with a slice of what is kept: it counts its own, and what the slices
 * before have says where they go. */
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/tca_launch.h"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

static __global__ void __launch_bounds__(THREADS)
    interleave(float *out, const float *gathered, const kernel_stripes stripes, int64_t stride,
               int64_t total)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (i >= total)
        return;
    const int64_t number = i / stripes.unit, within = i - number * stripes.unit;
    const int64_t round = number / stripes.stripes, stripe = number - round * stripes.stripes;
    out[i] = gathered[stripe * stride + round * stripes.unit + within];
}

void cuda_launch_interleave(cudaStream_t stream, float *out, const float *gathered,
                            const struct kernel_stripes *stripes, int64_t stride, int64_t total)
{
    interleave<<<(unsigned)((total + THREADS - 1) / THREADS), THREADS, 0, stream>>>(
        out, gathered, *stripes, stride, total);
}

/* The row of this stripe that a token is; -1: it is another stripe's. */
static __device__ __forceinline__ int32_t own_row(int32_t token, const kernel_stripes &stripes)
{
    const int64_t number = token / stripes.unit, within = token - number * stripes.unit;
    const int64_t round = number / stripes.stripes;

    if (number - round * stripes.stripes != stripes.stripe)
        return -1;
    return (int32_t)(round * stripes.unit + within);
}

static __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
    pick(int32_t *picked_out, int32_t *count_out, const int32_t *kept, const int32_t *count,
         const kernel_stripes stripes)
{
    __shared__ int counts[2][WARPS];
    __shared__ int total; /* of the own slice */
    cg::cluster_group cluster = cg::this_cluster();
    const int rank = cluster.block_rank();
    const slice own = own_slice(*count, rank);
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    int found = 0, before = 0, turn = 0;

    if (threadIdx.x == 0)
        total = 0;
    __syncthreads();
    for (int i = own.first + (int)threadIdx.x; i < own.end; i += THREADS)
        found += own_row(kept[i], stripes) >= 0;
    found = __reduce_add_sync(ALL_LANES, found);
    if (lane == 0)
        atomicAdd(&total, found);
    cluster.sync();
    for (int i = 0; i < rank; i++)
        before += *cluster.map_shared_rank(&total, i);
    for (int first = own.first; first < own.end; first += THREADS, turn ^= 1) {
        const int i = first + (int)threadIdx.x;
        const int32_t row = i < own.end ? own_row(kept[i], stripes) : -1;
        const unsigned votes = __ballot_sync(ALL_LANES, row >= 0);
        int all;

        if (lane == 0)
            counts[turn][warp] = __popc(votes);
        __syncthreads();
        const int place = before + warps_before(counts[turn], &all) + lanes_before(votes);
        if (row >= 0)
            picked_out[place] = row;
        before += all;
    }
    if (rank == CLUSTER - 1 && threadIdx.x == 0)
        *count_out = before;
    cluster.sync(); /* nobody reads this block's total any more */
}

void cuda_launch_pick(cudaStream_t stream, int32_t *picked_out, int32_t *count_out,
                      const int32_t *kept, const int32_t *count,
                      const struct kernel_stripes *stripes)
{
    pick<<<CLUSTER, THREADS, 0, stream>>>(picked_out, count_out, kept, count, *stripes);
}
