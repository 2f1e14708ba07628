option(TCA_CUDA "Build the CUDA kernels and the NCCL transport where nvcc is found" ON)
option(TCA_WERROR "Treat warnings as errors" OFF)
set(TCA_SANITIZE "" CACHE STRING "Comma list for -fsanitize=, e.g. address,undefined")

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ON) # every public header compiles alone
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

add_library(tca_options INTERFACE)
target_include_directories(tca_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(tca_options INTERFACE _GNU_SOURCE)
target_compile_options(tca_options INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
    -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wvla -Wundef -Wformat=2
    -Wimplicit-fallthrough -Wswitch-enum>
  $<$<AND:$<BOOL:${TCA_WERROR}>,$<COMPILE_LANGUAGE:C>>:-Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>
  $<$<AND:$<BOOL:${TCA_WERROR}>,$<COMPILE_LANGUAGE:CUDA>>:-Werror=all-warnings>)
if(TCA_SANITIZE)
  target_compile_options(tca_options INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-fsanitize=${TCA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(tca_options INTERFACE -fsanitize=${TCA_SANITIZE})
endif()
