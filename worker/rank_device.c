#include "worker/rank_device.h"

#include "base/log.h"
#include "worker/lockstep.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const device_wish_names[] = {"cpu", "auto", "cuda", NULL};

enum tca_status rank_hosts_init(struct rank_hosts *hosts, struct comm_group *control,
                                int timeout_ms)
{
    char own[HOST_NAME_BYTES] = "";

    *hosts = (struct rank_hosts){0};
    hosts->name = calloc((size_t)control->ranks, sizeof(*hosts->name));
    if (hosts->name == NULL)
        return TCA_ERR_NO_MEMORY;
    gethostname(own, sizeof(own) - 1);
    TCA_TRY(control->ops->gather(control, control->rank == 0 ? hosts->name : NULL, own, sizeof(own),
                                 0, timeout_ms));
    TCA_TRY(control->ops->broadcast(control, hosts->name,
                                    (size_t)control->ranks * sizeof(*hosts->name), 0, timeout_ms));
    for (int rank = 0; rank < control->ranks; rank++) {
        bool is_own = strcmp(hosts->name[rank], own) == 0;

        hosts->own_ranks += is_own;
        hosts->own_index += is_own && rank < control->rank;
    }
    return TCA_OK;
}

void rank_hosts_deinit(struct rank_hosts *hosts)
{
    free(hosts->name);
    *hosts = (struct rank_hosts){0};
}

/* Every rank's GPU `index`, or the CPU on all. */
static enum tca_status choose_backend(enum device_wish wish, struct comm_group *control, int index,
                                      int timeout_ms, const struct kernel_backend **backend_out,
                                      struct tca_error *error)
{
    const struct kernel_backend *cuda;
    struct tca_error why = {.text = "another rank has none"};
    enum tca_status status;

    *backend_out = kernel_backend_cpu();
    if (wish == DEVICE_CPU)
        return TCA_OK;
    cuda = kernel_backend_cuda(index, &why);
    status = lockstep_agree(control, cuda != NULL ? TCA_OK : TCA_ERR_DEVICE, timeout_ms);
    if (status == TCA_ERR_COMM)
        return tca_fail(error, status, "choosing a device: %s", tca_status_text(status));
    if (status == TCA_OK)
        *backend_out = cuda;
    else if (wish == DEVICE_CUDA)
        return tca_fail(error, status, "device cuda: none is usable: %s", why.text);
    else
        log_info("rank %d: device auto: cpu, for no GPU is usable: %s", control->rank, why.text);
    return TCA_OK;
}

enum tca_status rank_device_open(enum device_wish wish, struct comm_group *control,
                                 const struct rank_hosts *hosts, int timeout_ms,
                                 enum comm_nccl_sums sums, struct rank_device *device_out,
                                 struct tca_error *error)
{
    struct rank_device device = {
        .ranks_on_device = hosts->own_ranks, .control = control, .group = control};

    TCA_TRY(choose_backend(wish, control, hosts->own_index, timeout_ms, &device.backend, error));
    if (device.backend != kernel_backend_cpu()) {
        device.index = hosts->own_index;
        device.ranks_on_device = 1;
        if (control->ranks > 1)
            TCA_TRY(
                comm_nccl_create(control, device.index, timeout_ms, sums, &device.group, error));
    }
    *device_out = device;
    return TCA_OK;
}

void rank_device_close(struct rank_device *device)
{
    if (device->group != NULL && device->group != device->control)
        device->group->ops->destroy(device->group);
    *device = (struct rank_device){0};
}

int rank_threads(int wanted, int ranks)
{
    cpu_set_t cores;

    if (wanted > 0)
        return wanted;
    if (sched_getaffinity(0, sizeof(cores), &cores) != 0 || CPU_COUNT(&cores) < ranks)
        return 1;
    return CPU_COUNT(&cores) / ranks;
}
