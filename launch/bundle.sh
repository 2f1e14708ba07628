#!/bin/sh
# Collect programs and the libraries that a bare GPU host lacks into a folder that runs from
# anywhere. Usage: launch/bundle.sh FOLDER PROGRAM..   (made by the target `bundle`)
#
# FOLDER/bin holds a start script for each program, FOLDER/libexec the programs, FOLDER/lib the
# libraries, FOLDER/launch what starts the service on one host or several, FOLDER/share/tca the shapes of
# models and a tokenizer for weights that are made up.
# Left to the host: the C and C++ run-time libraries, the driver, CUDA, NCCL and MPI.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=$1
shift
host='ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libstdc\+\+|libgcc_s' # glibc 2.36 or later
host="$host|libcuda|libcudart|libcublas|libcublasLt|libnccl|libcudnn[a-z_]*"
host="$host|libmpi|libopen-rte|libopen-pal|libhwloc|libevent[a-z_]*(-[0-9.]+)?|libudev|libpmix"

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/libexec" "$out/launch" "$out/share/tca/needle-9m"
cp "$root/models/needle-9m/tokenizer.json" "$out/share/tca/needle-9m/"
cp -R "$root/models/shapes" "$out/share/tca/"
for file in local.sh mpirun_hosts.sh slurm.sbatch hostfile.example; do
    cp "$root/launch/$file" "$out/launch/"
done
for program in "$@"; do
    name=$(basename "$program")
    cp "$program" "$out/libexec/$name"
    cat >"$out/bin/$name" <<'SCRIPT'
#!/bin/sh
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/libexec/$(basename "$0")" "$@"
SCRIPT
    chmod +x "$out/bin/$name"
done
ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u | while read -r name path; do
    echo "$name" | grep -qE "^($host)[.]" || cp -L "$path" "$out/lib/$name"
done
strip --strip-unneeded "$out"/libexec/* "$out"/lib/*
du -sh "$out"
[ "$(du -sm "$out" | cut -f1)" -le 64 ] || echo "$out: over the 64 MiB that docs/gpu.md tells" >&2
