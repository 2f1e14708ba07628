#include "kernels/cpu/rows_tables.h"

#define ROWS_TABLE cpu_rows_portable
#include "kernels/cpu/rows_impl.h"
