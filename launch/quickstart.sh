#!/bin/bash
# From a fresh clone to answered questions: installs what is missing, builds, starts a coordinator
# and two workers on the CPU, uploads a long text with planted facts, asks for three of them, and
# stops everything. Usage: launch/quickstart.sh [SEED]
#
# Exit 0 only if two ranks were there, the text has 48,000 tokens or more and every answer is right.
# Another SEED gives another text and other facts. Nothing stays behind but the build folder.
set -euo pipefail
cd "$(dirname "$0")/.."
seed=${1:-10}
bin=$PWD/build/host/bin
work=
coordinator=

fail() {
    echo "quickstart: $*" >&2
    if [ -n "$work" ] && [ -s "$work/log" ]; then
        echo "the end of the service's log:" >&2
        tail -n 20 "$work/log" >&2
    fi
    exit 1
}

clean_up() {
    if [ -n "$coordinator" ]; then
        kill "$coordinator" 2>/dev/null || true
        wait "$coordinator" 2>/dev/null || true
    fi
    [ -z "$work" ] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

ms() { echo $(($(date +%s%N) / 1000000)); }
seconds_since() { awk -v ms=$(($(ms) - $1)) 'BEGIN { printf "%.1f s", ms / 1000 }'; }

build() {
    launch/install_packages.sh build demo
    # The tests are not needed here; a folder that tests/run.sh has configured keeps them.
    [ -f build/host/build.ninja ] || cmake --preset host -DBUILD_TESTING=OFF || return
    cmake --build --preset host --target tca tca-coordinator tca-worker
}

echo "== install and build"
work=$(mktemp -d)
begin=$(ms)
build >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; fail "the build failed"; }
echo "   $(seconds_since "$begin")"

echo "== start a coordinator and 2 workers with models/needle-9m"
start=$(ms)
"$bin/tca-coordinator" --model models/needle-9m --workers 2 --device cpu --listen 127.0.0.1:0 \
    --state-dir "$work/state" >"$work/out" 2>"$work/log" &
coordinator=$!
is_up() {
    TCA_SERVER=$(sed -n 's/^listening on //p' "$work/out")
    export TCA_SERVER
    [ -n "$TCA_SERVER" ] && "$bin/tca" health >/dev/null 2>&1
}
until is_up; do
    kill -0 "$coordinator" 2>/dev/null || fail "the coordinator ended"
    [ $(($(ms) - start)) -lt 300000 ] || fail "the service is not up after 300 s"
    sleep 0.1
done
echo "   $(seconds_since "$start")"
"$bin/tca" info | sed 's/^/   /'
[ "$("$bin/tca" info | grep -cE '^[0-9]+ +READY')" -eq 2 ] || fail "there are not two ranks"

echo "== upload a text with planted facts"
python3 tools/corpus.py --bytes 180000 --facts 3 --seed "$seed" --out "$work/text.txt" \
    --questions "$work/questions.json"
"$bin/tca" put "$work/text.txt" --id quickstart >/dev/null
tokens=$("$bin/tca" --json get quickstart | sed 's/.*"token_count": *"\([0-9]*\)".*/\1/')
[ "$tokens" -ge 48000 ] || fail "the text has only $tokens tokens"

right=0
while IFS=$'\t' read -r question expected; do
    echo "== $question"
    answer=$("$bin/tca" ask quickstart "$question" 2>"$work/usage") || fail "$(cat "$work/usage")"
    echo "   $answer"
    sed 's/^/   /' "$work/usage"
    if [[ $answer == *"$expected"* ]]; then
        right=$((right + 1))
    else
        echo "   wrong: the text says $expected"
    fi
done < <(python3 -c 'import json, sys
for row in json.load(open(sys.argv[1])):
    print(row["question"], row["answer"], sep="\t")' "$work/questions.json")

echo "== stop"
kill -TERM "$coordinator"
code=0
wait "$coordinator" || code=$?
coordinator=
[ "$code" -eq 0 ] || fail "the coordinator ended with exit code $code"

echo "$right of 3 answers are right; $(seconds_since "$start") after the build"
[ "$right" -eq 3 ] || fail "not every answer is right"
