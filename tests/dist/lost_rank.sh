#!/bin/sh
# Run three ranks of which the last goes missing: the group ends, by itself and with a failure.
# Usage: lost_rank.sh SOURCE PROGRAM dies|stalls|stalls_gather|stalls_to_all|stalls_part|aborts|skips
set -u
out=$(timeout 300 "$1/tests/support/mpirun.sh" 3 "$2" "$3" 2>&1)
status=$?
echo "$out"
case $status in
0) echo "a lost rank, and yet the group ended with 0"; exit 1 ;;
124) echo "the group did not end"; exit 1 ;;
esac
[ "$(echo "$out" | grep -c ': works')" = 3 ] || exit 1
# mpirun ends the others when a rank dies; when it only stalls they must notice by themselves, the
# first of them at least: mpirun ends the rest when that one goes.
if [ "${3%%_*}" = stalls ]; then
    echo "$out" | grep -q 'rank [01]: right' || exit 1
    echo "$out" | grep -q 'no answer from a peer in 3000 ms' || exit 1
fi
! echo "$out" | grep -q 'was not noticed'
