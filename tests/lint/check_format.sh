#!/bin/sh
# Fail when a C file is not formatted as .clang-format says. Exit 77 without clang-format 14, the
# version the formatting is defined by. Usage: check_format.sh REPO_ROOT
set -eu
cd "$1"
for tool in clang-format-14 clang-format; do
    case $($tool --version 2>/dev/null || true) in
    *' version 14.'*)
        git ls-files -z '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs -0 "$tool" --dry-run -Werror
        exit 0
        ;;
    esac
done
echo "clang-format 14 is not installed"
exit 77
