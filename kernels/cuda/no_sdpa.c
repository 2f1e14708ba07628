#include "base/log.h"
#include "kernels/cuda/sdpa.h"

enum tca_status sdpa_create(cudaStream_t stream, struct sdpa **sdpa_out)
{
    (void)stream;
    log_info("attention: this build is without cuDNN, own kernels serve");
    *sdpa_out = NULL;
    return TCA_OK;
}

void sdpa_destroy(struct sdpa *sdpa)
{
    (void)sdpa;
}

bool sdpa_prepare(struct sdpa *sdpa, const struct sdpa_form *form)
{
    (void)sdpa;
    (void)form;
    return false;
}

enum tca_status sdpa_run(struct sdpa *sdpa, const struct sdpa_form *form,
                         const struct sdpa_tensors *tensors)
{
    (void)sdpa;
    (void)form;
    (void)tensors;
    return TCA_ERR_UNSUPPORTED;
}
