#!/bin/sh
# Fail when a C file has a line of over 100 columns, but for names that a generator makes, or is not
# formatted as .clang-format says. Exit 77 without clang-format 14, the version the formatting is defined
# by. Usage: check_format.sh REPO_ROOT
set -eu
cd "$1"
if git ls-files -z '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' |
    LC_ALL=C.UTF-8 xargs -0 grep -nE '^.{101}' /dev/null | grep -vE ': +case [A-Z0-9_]+:$'; then
    echo "lines of over 100 columns"
    exit 1
fi
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
