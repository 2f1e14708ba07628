/* Stands in for comm_nccl.c in a build without NCCL. */
#include "comm/nccl/comm_nccl.h"

enum tca_status comm_nccl_create(struct comm_group *control, int device, int timeout_ms,
                                 enum comm_nccl_sums sums, struct comm_group **group_out,
                                 struct tca_error *error)
{
    (void)control;
    (void)device;
    (void)timeout_ms;
    (void)sums;
    (void)group_out;
    return tca_fail(error, TCA_ERR_UNSUPPORTED, "this build has no NCCL");
}
