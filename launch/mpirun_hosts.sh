#!/bin/bash
# Run the coordinator here and its workers on the hosts of an MPI hostfile, until Ctrl-C.
# Usage: launch/mpirun_hosts.sh HOSTFILE WORKER_LISTEN MODEL_DIR [COORDINATOR_OPTION..]
#
# WORKER_LISTEN is an address of this host that the others reach, with a port: 10.0.0.1:50052. Keep
# it off public networks. The workers' secret goes through mpirun's environment, not its arguments.
# PRESET=release takes another build than build/host; in a bundle it is the bundle's programs.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
hostfile=$1 worker_listen=$2 model=$3
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/bin
[ -x "$bin/tca-coordinator" ] || bin=$root/build/${PRESET:-host}/bin
workers=$(awk '!/^[[:space:]]*(#|$)/ { n = 1; if (match($0, /slots=[0-9]+/)) n = substr($0, RSTART + 6, RLENGTH - 6); sum += n }
               END { print sum + 0 }' "$hostfile")
[ "$workers" -gt 0 ] || { echo "$hostfile names no host" >&2; exit 2; }

secret=$(mktemp)
rm "$secret" # the coordinator makes it, with mode 0600
coordinator='' group=''
clean_up() {
    trap '' INT TERM # Ctrl-C has told everyone already
    if [ -n "$coordinator" ]; then
        kill -TERM "$coordinator" 2>/dev/null || true
        wait "$coordinator" || true # it drains, and tells the workers to leave
    fi
    [ -z "$group" ] || wait "$group" || true
    rm -f "$secret"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --restarts 0: a lost group ends the service, since nobody here starts another.
"$bin/tca-coordinator" --model "$model" --workers "$workers" --no-launch --restarts 0 \
    --worker-listen "$worker_listen" --secret-file "$secret" "$@" &
coordinator=$!
until [ -s "$secret" ]; do
    kill -0 "$coordinator" 2>/dev/null || exit 1
    sleep 0.1
done

TCA_WORKER_SECRET=$(cat "$secret")
export TCA_WORKER_SECRET
# A session of its own: Ctrl-C goes to the coordinator, which drains first.
setsid mpirun --hostfile "$hostfile" -np "$workers" --bind-to none -x TCA_WORKER_SECRET \
    "$bin/tca-worker" --coordinator "$worker_listen" &
group=$!
wait -n "$coordinator" "$group"
