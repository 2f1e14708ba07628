#define ROWS_TABLE rows_portable
#include "kernels/cpu/rows_impl.h"
