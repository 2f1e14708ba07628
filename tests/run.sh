#!/bin/bash
# Install what is missing, build every preset this machine can, run every test except those labelled
# `long`, and print a summary. Usage: tests/run.sh [PRESET..]   (default: host asan tsan, and
# release where nvcc is found and there is CUDA code to build)
#
# The last line is `N passed, N failed` with `, N skipped` where some were; exit 0 only if none failed.
# What each preset runs is written in CMakePresets.json. A second run only builds what changed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

passed=0 failed=0 skipped=0
notes=() # one line for each failed or skipped test and each failed step
started=$SECONDS

finish() {
    echo
    echo "== summary ($(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s)"
    [ ${#notes[@]} -eq 0 ] || printf '%s\n' "${notes[@]}"
    if [ "$skipped" -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    [ "$failed" -eq 0 ]
    exit
}

# step NAME COMMAND..: a failure counts as one failed test.
step() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    if ! "$@" </dev/null; then
        failed=$((failed + 1))
        notes+=("failed: $name")
        return 1
    fi
    echo "== $name: $((SECONDS - begin)) s"
}

# The interpreter and packages of the Python tests, remade when the list changes.
make_venv() {
    local stamp
    stamp="$(python3 --version) $(cksum <tests/requirements.txt)"
    [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && return 0
    rm -rf .venv
    python3 -m venv .venv &&
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/requirements.txt &&
        echo "$stamp" >.venv/stamp
}

# Add the results of a ctest run (JUnit file $1, of preset $2) to the counts and notes.
count_results() {
    local status name
    while read -r status name; do
        case $status in
        run) passed=$((passed + 1)) ;;
        fail) failed=$((failed + 1)); notes+=("failed: $2 $name") ;;
        *) skipped=$((skipped + 1)); notes+=("skipped: $2 $name") ;;
        esac
    done < <(sed -n 's/.*<testcase name="\([^"]*\)".* status="\([^"]*\)".*/\2 \1/p' "$1")
}

run_preset() {
    local preset=$1 results=$PWD/build/$1/results.xml
    step "configure $preset" quiet "build/$preset.configure.log" cmake --preset "$preset" -DBUILD_TESTING=ON || return
    step "build $preset" quiet "build/$preset.build.log" cmake --build --preset "$preset" || return
    rm -f "$results"
    echo "== test $preset"
    ctest --preset "$preset" --output-junit "$results" --no-tests=error </dev/null
    if [ -f "$results" ]; then
        count_results "$results" "$preset"
    else
        failed=$((failed + 1))
        notes+=("failed: test $preset (no results)")
    fi
}

# quiet LOG COMMAND..: the output goes to LOG, and its end to the terminal if the command fails.
quiet() {
    local log=$1
    shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 || { tail -n 60 "$log"; return 1; }
}

step "install packages" launch/install_packages.sh build test || finish
step "python packages" make_venv || finish

presets=("$@")
if [ ${#presets[@]} -eq 0 ]; then
    presets=(host asan tsan)
    PATH=$PATH:/usr/local/cuda/bin
    if command -v nvcc >/dev/null && compgen -G 'kernels/cuda/*.cu' >/dev/null; then
        presets+=(release)
    fi
fi
for preset in "${presets[@]}"; do
    run_preset "$preset"
done
finish
