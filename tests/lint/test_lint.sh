#!/bin/sh
# The lint itself: in a copy of a small tree each kind of violation must be found, and only there.
# Usage: test_lint.sh REPO_ROOT
set -eu
lint=$1/tests/lint
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/tests/lint" "$tree/docs" "$tree/bin"
(cd "$tree" && mkdir base proto kernels comm model worker coordinator client calibrate)
cp "$lint"/layers.txt "$lint"/sizes_allowed.txt "$tree/tests/lint/"
cp "$1/docs/make_configuration.sh" "$tree/docs/"
cp "$1/.clang-format" "$tree/"
cd "$tree"
git init -q .
printf '#include "base/status.h"\n\n#include <stdint.h>\n' >model/plain.c
failures=0

# expect found|clean CHECK WHAT [ARG..]
expect() {
    want=$1 check=$2 what=$3
    shift 3
    git add -A
    code=0
    output=$("$lint/check_$check.sh" "$tree" "$@" 2>&1) || code=$?
    [ "$check-$code" != format-77 ] || return 0 # clang-format is missing; its own test says so
    case $want-$code in
    clean-0) ;;
    found-0 | clean-*) echo "$check, $what: wanted $want, exit $code: $output"; failures=1 ;;
    found-*)
        case $output in
        *planted*) ;;
        *) echo "$check, $what: the file is not named: $output"; failures=1 ;;
        esac
        ;;
    esac
    rm -f ./*/planted.[ch]
}

# program NAME LINE: one whose table of settings is this line
program() {
    printf '#!/bin/sh\necho "%s"\n' "$2" >"bin/$1"
    chmod +x "bin/$1"
}

echo 'Life begins with `plain_get()`.' >docs/ARCHITECTURE.md
printf '\nint plain_get(void)\n{\n    return 0;\n}\n' >>model/plain.c
for name in tca-coordinator tca-worker tca tca-calibrate; do
    program $name "| --name | of $name |"
done
docs/make_configuration.sh bin >docs/configuration.md

for check in layers sizes format names; do
    expect clean $check 'a tree in order'
done
expect clean configuration 'a tree in order' bin

echo '#include "coordinator/server.h"' >worker/planted.c
expect found layers 'the worker includes the coordinator'
echo '#  include "worker/engine.h"' >base/planted.h
expect found layers 'a lower layer includes a higher one'
for header in mpi.h grpc/grpc.h protobuf-c/protobuf-c.h cuda_runtime_api.h nccl.h jansson.h pcre2.h; do
    echo "#include <$header>" >worker/planted.c
    expect found layers "<$header> outside its folder"
done
echo '#include "mpi.h"' >worker/planted.c
expect found layers 'a vendor header in quotes'
echo '#include "tca.pb-c.h"' >model/planted.c
expect found layers 'generated messages where proto is not allowed'
echo '#include "grpc/health/v1/health.pb-c.h"' >worker/planted.c
expect clean layers 'generated messages where proto is allowed'
echo '#include "model/tokenizer.h"' >worker/planted.c
expect clean layers 'an allowed include'

yes 'int x;' | head -n 801 >base/planted.c
expect found sizes 'a file of 801 lines'
yes 'int x;' | head -n 800 >base/planted.c
expect clean sizes 'a file of 800 lines'
echo 'base/planted.c 900 because' >>tests/lint/sizes_allowed.txt
yes 'int x;' | head -n 900 >base/planted.c
expect clean sizes 'a listed file within its length'
yes 'int x;' | head -n 901 >base/planted.c
expect found sizes 'a listed file beyond its length'

printf 'int  x ;\n' >base/planted.c
expect found format 'loose spacing'
printf '/* %095d */\n' 0 >base/planted.h
expect found format 'a comment of over 100 columns'
printf '/* %094d */\n' 0 >base/planted.h
expect clean format 'a comment of 100 columns'

echo 'Then comes `planted_take()`.' >>docs/ARCHITECTURE.md
expect found names 'a function that is nowhere'
printf 'static int plain(void)\n{\n    return planted_take();\n}\n' >base/planted.c
expect found names 'a function that is called alone'
printf 'enum tca_status planted_take(void);\n' >base/planted.h
expect found names 'a function that is declared alone'
for head in 'static struct planted *planted_take(void)' 'planted_take(void)'; do
    printf '%s\n{\n}\n' "$head" >base/planted.c
    expect clean names 'a function that is there'
done
echo '`command_planted()` too.' >docs/ARCHITECTURE.md
expect found names 'a command that is nowhere'
echo 'COMMAND_FUNCTION(planted)' >client/planted.c
expect clean names 'a command that is there'

program tca-worker '| --planted | new |'
expect found configuration 'a setting that the page lacks' bin
program tca-worker '| --name | of tca-worker |'
echo '| --planted | gone |' >>docs/configuration.md
expect found configuration 'a setting that only the page has' bin
exit $failures
