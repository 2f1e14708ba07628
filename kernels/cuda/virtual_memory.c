#include "kernels/cuda/virtual_memory.h"

#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/driver.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <stdint.h>

/* Memory is taken in pieces, so that no long run of it has to be free. */
enum { PIECE_BYTES = 64 << 20 };

_Static_assert(PIECE_BYTES % VIRTUAL_MEMORY_GRANULE_BYTES == 0, "pieces are whole granules");

struct driver {
    PFN_cuMemGetAllocationGranularity_v10020 get_granularity;
    PFN_cuMemAddressReserve_v10020 reserve;
    PFN_cuMemAddressFree_v10020 unreserve;
    PFN_cuMemCreate_v10020 create;
    PFN_cuMemRelease_v10020 release;
    PFN_cuMemMap_v10020 map;
    PFN_cuMemUnmap_v10020 unmap;
    PFN_cuMemSetAccess_v10020 set_access;
};

static CUmemAllocationProp properties_of(int device)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

static bool driver_open(int device, struct driver *driver)
{
    const CUmemAllocationProp properties = properties_of(device);
    size_t granularity = 0;

    return cuda_driver_find("cuMemGetAllocationGranularity", (void **)&driver->get_granularity) &&
           cuda_driver_find("cuMemAddressReserve", (void **)&driver->reserve) &&
           cuda_driver_find("cuMemAddressFree", (void **)&driver->unreserve) &&
           cuda_driver_find("cuMemCreate", (void **)&driver->create) &&
           cuda_driver_find("cuMemRelease", (void **)&driver->release) &&
           cuda_driver_find("cuMemMap", (void **)&driver->map) &&
           cuda_driver_find("cuMemUnmap", (void **)&driver->unmap) &&
           cuda_driver_find("cuMemSetAccess", (void **)&driver->set_access) &&
           driver->get_granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM) ==
               CUDA_SUCCESS &&
           granularity > 0 && VIRTUAL_MEMORY_GRANULE_BYTES % granularity == 0;
}

/* The driver numbers its errors as the run-time library does. */
static enum tca_status driver_status(CUresult code, const char *what)
{
    return cuda_status((cudaError_t)code, what);
}

static size_t rounded(size_t bytes)
{
    return (bytes + VIRTUAL_MEMORY_GRANULE_BYTES - 1) / VIRTUAL_MEMORY_GRANULE_BYTES *
           VIRTUAL_MEMORY_GRANULE_BYTES;
}

static size_t piece_at(size_t place, size_t bytes)
{
    return bytes - place < PIECE_BYTES ? bytes - place : PIECE_BYTES;
}

bool virtual_memory_serves(int device, size_t bytes)
{
    struct driver driver;

    return bytes >= VIRTUAL_MEMORY_LEAST_BYTES && driver_open(device, &driver);
}

/* A mapping keeps its memory: the handle is let go at once. */
static enum tca_status map_piece(const struct driver *driver, int device, CUdeviceptr at,
                                 size_t bytes)
{
    const CUmemAllocationProp properties = properties_of(device);
    CUmemGenericAllocationHandle handle;
    enum tca_status status;

    TCA_TRY(driver_status(driver->create(&handle, bytes, &properties, 0), "cuMemCreate"));
    status = driver_status(driver->map(at, bytes, 0, handle, 0), "cuMemMap");
    (void)driver_status(driver->release(handle), "cuMemRelease");
    return status;
}

static void unmap(const struct driver *driver, CUdeviceptr range, size_t bytes)
{
    for (size_t place = 0; place < bytes; place += PIECE_BYTES)
        (void)driver_status(driver->unmap(range + place, piece_at(place, bytes)), "cuMemUnmap");
}

enum tca_status virtual_memory_alloc(int device, size_t bytes, void **ptr_out)
{
    const CUmemAccessDesc access = {.location = properties_of(device).location,
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    const size_t size = rounded(bytes);
    enum tca_status status = TCA_OK;
    struct driver driver;
    CUdeviceptr range;
    size_t mapped = 0;

    if (size < bytes)
        return TCA_ERR_NO_MEMORY;
    if (!driver_open(device, &driver))
        return TCA_ERR_DEVICE;
    TCA_TRY(driver_status(driver.reserve(&range, size, 0, 0, 0), "cuMemAddressReserve"));
    while (mapped < size && status == TCA_OK) {
        const size_t piece = piece_at(mapped, size);

        status = map_piece(&driver, device, range + mapped, piece);
        if (status == TCA_OK)
            mapped += piece;
    }
    if (status == TCA_OK)
        status = driver_status(driver.set_access(range, size, &access, 1), "cuMemSetAccess");
    if (status != TCA_OK) {
        unmap(&driver, range, mapped);
        (void)driver_status(driver.unreserve(range, size), "cuMemAddressFree");
        return status;
    }
    *ptr_out = (void *)(uintptr_t)range;
    return TCA_OK;
}

void virtual_memory_free(int device, void *ptr, size_t bytes)
{
    const CUdeviceptr range = (CUdeviceptr)(uintptr_t)ptr;
    struct driver driver;

    if (!driver_open(device, &driver))
        return;
    unmap(&driver, range, rounded(bytes));
    (void)driver_status(driver.unreserve(range, rounded(bytes)), "cuMemAddressFree");
}
