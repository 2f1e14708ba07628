# One row `{"package.Message", "field"},` for every string field, from our own .proto files: one
# declaration a line, a block's brace at the end of its first line.
FNR == 1 { depth = 0; scope[0] = "" }
{ sub(/\/\/.*/, "") }
$1 == "package" { sub(/;/, "", $2); scope[0] = $2 }
/\{/ {
    scope[depth + 1] = scope[depth] ($1 == "message" ? "." $2 : "")
    depth++
}
$1 == "string" { print "{\"" scope[depth] "\", \"" $2 "\"}," }
$1 == "repeated" && $2 == "string" { print "{\"" scope[depth] "\", \"" $3 "\"}," }
/\}/ { depth-- }
