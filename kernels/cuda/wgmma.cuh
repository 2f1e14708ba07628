/* Products of a warpgroup (4 warps) by the tensor cores, both operands in shared memory: Hopper's
 * asynchronous wgmma, with the waits and fences that belong to it.
 *
 * Operands lie in panels of 64 columns of bf16: a row of a panel is 128 bytes, its pieces of 16
 * bytes swizzled (piece p of row r at p ^ r % 8), so that neither side meets a bank twice. Panels
 * start at multiples of 1024 bytes. */
#ifndef KERNELS_CUDA_WGMMA_CUH
#define KERNELS_CUDA_WGMMA_CUH

#include <stdint.h>

enum { WGMMA_PANEL_COLUMNS = 64, WGMMA_PANEL_ROW_BYTES = 128, WGMMA_WARPGROUP = 128 };

/* Where piece `piece` (16 bytes) of row `row` lies in panels of `rows` rows. */
static __device__ __forceinline__ int wgmma_place(int row, int piece, int rows)
{
    return (piece / 8 * rows + row) * WGMMA_PANEL_ROW_BYTES + ((piece ^ row) % 8) * 16;
}

/* Describes an operand that starts at `shared`, a row that is a multiple of 8. */
static __device__ __forceinline__ uint64_t wgmma_operand(const void *shared)
{
    uint64_t address = (uint64_t)(__cvta_generic_to_shared(shared) & 0x3ffff) >> 4;

    return address | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* What is written to shared memory by copies and stores becomes visible to wgmma. */
static __device__ __forceinline__ void wgmma_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most PENDING groups are under way. */
template <int PENDING> static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Keeps the compiler from moving uses of sums across a wait. */
template <int COUNT> static __device__ __forceinline__ void wgmma_hold(float (&d)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* d (+)= a b^T. a: 64 rows, b: 128 rows, of 16 columns. Thread t of the warpgroup holds, in
 * d[4 n + 2 h + i], row t / 32 * 16 + t % 32 / 4 + 8 h and column 8 n + t % 4 * 2 + i. */
static __device__ __forceinline__ void wgmma_64x128x16(float (&d)[64], uint64_t a, uint64_t b,
                                                       bool adds)
{
    asm volatile(
        "{.reg .pred p; setp.ne.b32 p, %66, 0;"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
        "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, "
        "%37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, "
        "%55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p, 1, 1, 0, 0;}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
          "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
          "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
          "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
          "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
          "+f"(d[63])
        : "l"(a), "l"(b), "r"((int)adds));
}

#endif
