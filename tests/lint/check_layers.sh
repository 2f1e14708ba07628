#!/bin/sh
# Fail when a directory includes one it may not depend on (see layers.txt), and
# when a vendor header leaks out of the directory that wraps it.
# Usage: check_layers.sh REPO_ROOT
set -eu
cd "$1"
generated='include[[:space:]]+["<][^">]*[.]pb-c[.]h[">]' # from proto/, whatever its path says
bad=$(
    while IFS=: read -r dir allowed; do
        case $dir in '' | '#'*) continue ;; esac
        [ -d "$dir" ] || continue
        case $allowed in *'*'*) continue ;; esac
        pattern=$(echo "$dir $allowed" | tr -s ' ' '|' | sed 's/|$//')
        grep -rnE '^#[[:space:]]*include[[:space:]]+"[a-z_]+/' "$dir" --include='*.[ch]' --include='*.cu' --include='*.cuh' --include='*.cpp' |
            grep -vE "\"($pattern)/|$generated" || true
        case " $dir $allowed " in *' proto '*) continue ;; esac
        grep -rnE "$generated" "$dir" --include='*.[ch]' --include='*.cu' --include='*.cuh' --include='*.cpp' || true
    done <tests/lint/layers.txt

    vendor() { # HEADER_REGEX ALLOWED_DIR...
        header=$1; shift
        keep=$(echo "$*" | sed 's/ /|/g')
        grep -rnE "^#[[:space:]]*include[[:space:]]+[<\"]($header)" . --exclude-dir=build --exclude-dir=.venv --include='*.[ch]' --include='*.cu' --include='*.cuh' --include='*.cpp' |
            grep -vE "^\./($keep)/|$generated" || true
    }
    vendor 'cuda|cublas|cudnn' kernels/cuda comm/nccl
    vendor 'nccl' comm/nccl
    vendor 'mpi[.]h' comm/mpi
    vendor 'dnnl|oneapi|omp[.]h' kernels/cpu
    vendor 'pcre2|utf8proc' model
    vendor 'jansson|openssl' base
    vendor "grpc|protobuf-c" proto
)
[ -z "$bad" ] || { echo "layering broken:"; echo "$bad"; exit 1; }
