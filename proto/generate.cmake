# C code for the .proto files: messages by protoc-c ("tca.pb-c.h", "control.pb-c.h", ...), the
# descriptor set that reflection serves, and the list of the fields that are texts.
#
# protobuf-c cuts a string at its first NUL, so its generator sees copies in which every string is
# bytes: the same on the wire, a ProtobufCBinaryData in C. What those copies forget, texts.awk
# collects. The descriptors that the world sees are made from the files as they are.
find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_GEN_C protoc-gen-c REQUIRED)
find_program(AWK awk REQUIRED)
find_path(PROTOBUF_PROTOS google/protobuf/timestamp.proto REQUIRED)

set(published_protos tca.proto grpc/health/v1/health.proto grpc/reflection/v1/reflection.proto
    google/rpc/status.proto google/rpc/error_details.proto)
set(described_protos ${published_protos} grpc/reflection/v1alpha/reflection.proto)
set(wellknown_protos google/protobuf/timestamp.proto google/protobuf/duration.proto
    google/protobuf/any.proto google/protobuf/descriptor.proto)

set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
set(copies ${CMAKE_CURRENT_BINARY_DIR}/texts_as_bytes)

set(copied_protos "")
set(generated_sources "")
foreach(file IN LISTS published_protos wellknown_protos ITEMS control.proto)
  set(origin ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  if(NOT EXISTS ${origin})
    set(origin ${PROTOBUF_PROTOS}/${file})
  endif()
  add_custom_command(
    OUTPUT ${copies}/${file}
    COMMAND ${AWK} -f ${CMAKE_CURRENT_SOURCE_DIR}/texts_as_bytes.awk ${origin} > ${copies}/${file}
    DEPENDS ${origin} ${CMAKE_CURRENT_SOURCE_DIR}/texts_as_bytes.awk VERBATIM)
  get_filename_component(folder ${file} DIRECTORY)
  file(MAKE_DIRECTORY ${copies}/${folder})
  string(REGEX REPLACE "[.]proto$" ".pb-c" stem ${file})
  list(APPEND copied_protos ${copies}/${file})
  list(APPEND generated_sources ${generated}/${stem}.c ${generated}/${stem}.h)
endforeach()
file(MAKE_DIRECTORY ${generated})
list(TRANSFORM copied_protos REPLACE "^${copies}/" "" OUTPUT_VARIABLE copied_names)
add_custom_command(
  OUTPUT ${generated_sources}
  COMMAND ${PROTOC} --plugin=protoc-gen-c=${PROTOC_GEN_C} -I${copies} --c_out=${generated}
          ${copied_names}
  DEPENDS ${copied_protos} VERBATIM)

list(TRANSFORM described_protos PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE described_files)
list(TRANSFORM published_protos PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE published_files)
add_custom_command(
  OUTPUT ${generated}/descriptor_set.bin
  COMMAND ${PROTOC} -I${CMAKE_CURRENT_SOURCE_DIR} -I${PROTOBUF_PROTOS} --include_imports
          --descriptor_set_out=${generated}/descriptor_set.bin ${described_protos}
  DEPENDS ${described_files} VERBATIM)
add_custom_command(
  OUTPUT ${generated}/descriptor_set.inc
  COMMAND ${CMAKE_COMMAND} -DINPUT=${generated}/descriptor_set.bin
          -DOUTPUT=${generated}/descriptor_set.inc -P ${CMAKE_CURRENT_SOURCE_DIR}/embed.cmake
  DEPENDS ${generated}/descriptor_set.bin embed.cmake VERBATIM)
add_custom_command(
  OUTPUT ${generated}/text_fields.inc
  COMMAND ${AWK} -f ${CMAKE_CURRENT_SOURCE_DIR}/text_fields.awk ${published_files}
          > ${generated}/text_fields.inc
  DEPENDS ${published_files} text_fields.awk VERBATIM)

# Without the project's warnings: it is not our code.
add_library(tca_proto_generated STATIC ${generated_sources} ${generated}/descriptor_set.inc
            ${generated}/text_fields.inc)
target_include_directories(tca_proto_generated SYSTEM PUBLIC ${generated})
target_link_libraries(tca_proto_generated PUBLIC PkgConfig::PROTOBUF_C)
