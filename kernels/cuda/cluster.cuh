/* Lists that a cluster of blocks makes for one head: each block has a slice of the elements, and a
 * listed element's place is the number of those before it. */
#ifndef KERNELS_CUDA_CLUSTER_CUH
#define KERNELS_CUDA_CLUSTER_CUH

enum { CLUSTER = 8, THREADS = 1024, LANES = 32, WARPS = THREADS / LANES };

static constexpr unsigned ALL_LANES = 0xffffffffu;

static_assert((int)WARPS == (int)LANES, "a lane a warp");

static __device__ __forceinline__ int lanes_before(unsigned votes)
{
    return __popc(votes & ((1u << threadIdx.x % LANES) - 1));
}

/* Sum of values[0 .. own warp - 1], one a warp; *all_out: of all. */
static __device__ __forceinline__ int warps_before(const int *values, int *all_out)
{
    int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    int value = values[lane];

    *all_out = __reduce_add_sync(ALL_LANES, value);
    return __reduce_add_sync(ALL_LANES, lane < warp ? value : 0);
}

/* Elements that one block of a cluster looks at. */
struct slice {
    int first, end;
};

/* `count` elements in CLUSTER slices, cut at multiples of THREADS. */
static __device__ __forceinline__ slice own_slice(int count, int rank)
{
    int each = (count + CLUSTER * THREADS - 1) / (CLUSTER * THREADS) * THREADS;

    return {min(rank * each, count), min(rank * each + each, count)};
}

#endif
