# The .proto file with every string field as bytes. Keys of maps stay strings.
{
    sub(/^[ \t]*string /, "  bytes ")
    sub(/^[ \t]*repeated string /, "  repeated bytes ")
    sub(/^[ \t]*optional string /, "  optional bytes ")
    print
}
