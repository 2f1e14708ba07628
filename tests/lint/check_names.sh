#!/bin/sh
# Fail when docs/ARCHITECTURE.md names a function that the code does not define: every `name()` there
# must stand in some C file as a definition. Usage: check_names.sh REPO_ROOT
set -eu
cd "$1"
bad=$(
    grep -oE '`[a-z_0-9]+\(\)`' docs/ARCHITECTURE.md | tr -d '`()' | sort -u | while read -r name; do
        # The client's commands are defined by a macro.
        grep -rqE "(^[a-z].*[ *]|^)$name\(|^COMMAND_FUNCTION\(${name#command_}\)" --include='*.c' \
            base proto kernels comm model worker coordinator client calibrate || echo "docs/ARCHITECTURE.md: no function $name"
    done
)
[ -z "$bad" ] || { echo "$bad"; exit 1; }
