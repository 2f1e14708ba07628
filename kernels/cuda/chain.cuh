/* Kernels that begin while the one before them in the stream still runs (programmatic dependent
 * launch, CUDA C++ Programming Guide): a decode step is hundreds of short kernels, whose starts and
 * ends would otherwise be lost time, and whose weights can be asked for before their inputs are
 * there.
 *
 * Every thread of such a kernel calls chain_wait() before it reads what another kernel wrote, or
 * writes anything; from then on all earlier work of the stream is done and seen. Before it, only
 * what never changes may be read: weights. */
#ifndef KERNELS_CUDA_CHAIN_CUH
#define KERNELS_CUDA_CHAIN_CUH

#include <cuda_runtime.h>

#include <utility>

/* Let the next kernel begin as soon as all blocks of this one have: it waits for this one's end. */
static __device__ __forceinline__ void chain_let_next_begin()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

static __device__ __forceinline__ void chain_wait()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

/* Enqueue a kernel that calls chain_wait(); its error is read with cuda_launch_status(). */
template <class... Parameters, class... Arguments>
static inline void chain_launch(cudaStream_t stream, void (*kernel)(Parameters...), dim3 grid,
                                dim3 block, size_t shared_bytes, Arguments &&...arguments)
{
    cudaLaunchAttribute overlaps = {};
    cudaLaunchConfig_t config = {};

    overlaps.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlaps.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &overlaps;
    config.numAttrs = 1;
    (void)cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...);
}

#endif
