#define ATTENTION_TILE_TABLE attention_tile_avx2
#include "kernels/cpu/attention_tile_impl.h"
