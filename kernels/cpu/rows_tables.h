/* The instances of rows_impl.h. */
#ifndef KERNELS_CPU_ROWS_TABLES_H
#define KERNELS_CPU_ROWS_TABLES_H

#include "kernels/cpu/rows.h"

extern const struct cpu_rows cpu_rows_portable;

#endif
