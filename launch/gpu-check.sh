#!/bin/sh
# Build the preset release and run every test that needs a GPU, then, where compute-sanitizer is
# installed, the operations under its memcheck and racecheck. Usage: launch/gpu-check.sh [CTEST_OPTION..]
#
# Tests for which there are too few GPUs are skipped. Exit 0 only if nothing failed, 77 if only
# compute-sanitizer is missing.
set -eu
cd "$(dirname "$0")/.."
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv
cmake --preset release
cmake --build --preset release
ctest --preset release -L '^gpu$' "$@"
if ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer is not installed: memcheck and racecheck were not run"
    exit 77
fi
for test in test_parity test_parity_attention test_parity_stripes test_parity_tca test_sparse_masked; do
    # A test asks for more memory than there is: that error of the API is wanted.
    compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 "build/release/tests/$test"
done
# Of cuBLASLt's and cuDNN's kernels racecheck reports races, which are not ours to judge.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for test in test_parity test_parity_attention test_parity_stripes test_parity_tca test_sparse_masked; do
    compute-sanitizer --tool racecheck "build/release/tests/$test" >"$log" 2>&1 || { cat "$log"; exit 1; }
    if grep 'Race reported' "$log" | grep -vE ' access at (nvjet_|cudnn_)'; then
        echo "$test: these races are ours"
        exit 1
    fi
    tail -n 1 "$log"
done
