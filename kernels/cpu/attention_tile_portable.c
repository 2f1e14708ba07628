#define ATTENTION_TILE_TABLE attention_tile_portable
#include "kernels/cpu/attention_tile_impl.h"
