#!/bin/bash
# Install the Debian packages that are missing, as root or through sudo.
# Usage: install_packages.sh GROUP..    build: to build and run; demo: for quickstart.sh; test: to
# run the tests
#
# Does nothing, quickly, when all are there. Where it cannot install, it lists what is missing and
# exits 1. On a system without dpkg it only says what is needed: CMake then names what it lacks.
set -euo pipefail

# oneDNN's CMake files look for OpenCL, but Debian's package does not depend on it.
build_packages=(
    build-essential cmake ninja-build pkg-config
    libgrpc-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libprotobuf-dev
    libopenmpi-dev openmpi-bin libdnnl-dev ocl-icd-opencl-dev libssl-dev
    libpcre2-dev libutf8proc-dev libjansson-dev
)
demo_packages=(python3)
test_packages=(libcmocka-dev clang-format git python3-venv)

wanted=()
for group in "$@"; do
    case $group in
    build) wanted+=("${build_packages[@]}") ;;
    demo) wanted+=("${demo_packages[@]}") ;;
    test) wanted+=("${test_packages[@]}") ;;
    *) echo "usage: install_packages.sh build|demo|test.." >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    echo "not a Debian system; these Debian packages, or their equals, are needed:" "${wanted[@]}" >&2
    exit 0
fi

missing_packages() {
    for package in "${wanted[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

mapfile -t missing < <(missing_packages)
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || { ! sudo -n true 2>/dev/null && [ ! -t 0 ]; }; then
        echo "missing packages, and no way to become root here. As root, run:" >&2
        echo "  apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

echo "installing: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1
}
# A stale index is the usual reason for a failure; an unreachable one may still be good enough.
apt_get update || true
if ! apt_get install --no-install-recommends "${missing[@]}"; then
    tail -n 20 "$log" >&2
    mapfile -t missing < <(missing_packages)
    echo "could not install: ${missing[*]}" >&2
    exit 1
fi
