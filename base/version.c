#include "base/version.h"

const char *tca_version(void)
{
    return TCA_VERSION;
}
