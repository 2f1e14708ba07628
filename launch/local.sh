#!/bin/bash
# Run the service on this machine in the foreground, until Ctrl-C.
# Usage: launch/local.sh [MODEL_DIR [COORDINATOR_OPTION..]]   (default: models/needle-9m, 2 workers)
# PRESET=release takes another build than build/host; in a bundle it is the bundle's programs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/bin
[ -x "$bin/tca-coordinator" ] || bin=$root/build/${PRESET:-host}/bin
model=${1:-$root/models/needle-9m}
[ $# -eq 0 ] || shift
[ -x "$bin/tca-coordinator" ] || {
    echo "no $bin/tca-coordinator; build it: cmake --preset host && cmake --build --preset host" >&2
    exit 1
}
exec "$bin/tca-coordinator" --model "$model" --workers 2 "$@"
