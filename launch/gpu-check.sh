#!/bin/sh
# Build the preset release and run every test that needs a GPU, then, where compute-sanitizer is
# installed, the operations under its memcheck and racecheck. Usage: launch/gpu-check.sh [CTEST_OPTION..]
#
# Tests for which there are too few GPUs are skipped. Exit 0 only if nothing failed.
set -eu
cd "$(dirname "$0")/.."
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv
cmake --preset release
cmake --build --preset release
ctest --preset release -L '^gpu$' "$@"
if command -v compute-sanitizer >/dev/null; then
    for run in memcheck:test_parity memcheck:test_parity_attention memcheck:test_parity_stripes \
        memcheck:test_parity_tca memcheck:test_sparse_masked racecheck:test_parity_stripes \
        racecheck:test_sparse_masked; do
        # A test asks for more memory than there is: that error of the API is wanted.
        compute-sanitizer --tool "${run%%:*}" --report-api-errors no --error-exitcode 1 \
            "build/release/tests/${run#*:}"
    done
else
    echo "compute-sanitizer is not installed: memcheck and racecheck were not run"
fi
