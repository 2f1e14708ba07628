#define ROWS_TABLE rows_avx512
#include "kernels/cpu/rows_impl.h"
