#define ROWS_TABLE rows_avx2
#include "kernels/cpu/rows_impl.h"
