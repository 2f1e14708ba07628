/* What one rank computes on, and how its tensors reach the others.
 *
 * On GPUs each rank of a machine has one of its own, in the order of the ranks, and tensors travel
 * by NCCL; the CPU's ranks share the machine, and tensors travel by the control group. */
#ifndef WORKER_RANK_DEVICE_H
#define WORKER_RANK_DEVICE_H

#include "base/error.h"
#include "comm/group.h"
#include "comm/nccl/comm_nccl.h"

enum { HOST_NAME_BYTES = 65 };

enum device_wish { DEVICE_CPU, DEVICE_AUTO, DEVICE_CUDA };
extern const char *const device_wish_names[]; /* "cpu", ..; NULL-terminated: a setting's choices */

/* The machine of every rank. */
struct rank_hosts {
    char (*name)[HOST_NAME_BYTES]; /* owned [ranks] */
    int own_index;                 /* of this rank among the ranks of its machine */
    int own_ranks;                 /* of its machine */
};

struct rank_device {
    const struct kernel_backend *backend;
    int index;                  /* of the device */
    int ranks_on_device;        /* that share its memory */
    struct comm_group *control; /* borrowed */
    struct comm_group *group;   /* for tensors and control; owned where it is not `control` */
};

/* Collective. deinit() also after a failure. */
enum tca_status rank_hosts_init(struct rank_hosts *hosts, struct comm_group *control,
                                int timeout_ms);
void rank_hosts_deinit(struct rank_hosts *hosts);

/* Collective; borrows `control`. All ranks get the same backend: with DEVICE_AUTO CUDA where every
 * rank has a GPU of its own that it can use; otherwise the log says why not. `wish` and `sums` are
 * the same on all ranks. */
enum tca_status rank_device_open(enum device_wish wish, struct comm_group *control,
                                 const struct rank_hosts *hosts, int timeout_ms,
                                 enum comm_nccl_sums sums, struct rank_device *device_out,
                                 struct tca_error *error);
/* Before `control` is destroyed; zeroed is a no-op. */
void rank_device_close(struct rank_device *device);

/* CPU threads for each of `ranks` on this machine: `wanted`, or with 0 an even share of the cores
 * that this process may use, at least 1. */
int rank_threads(int wanted, int ranks);

#endif
