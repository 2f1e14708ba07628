# tca_library(NAME HEADERS h.. SOURCES c.. DEPENDS target.. PRIVATE target..)
# One static library per directory; DEPENDS mirrors tests/lint/layers.txt, PRIVATE holds the vendor
# libraries that no public header shows.
function(tca_library name)
  cmake_parse_arguments(ARG "" "" "HEADERS;SOURCES;DEPENDS;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_sources(${name} PUBLIC FILE_SET HEADERS
                 BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${ARG_HEADERS})
  target_link_libraries(${name} PUBLIC ${ARG_DEPENDS} Threads::Threads
                        PRIVATE ${ARG_PRIVATE} $<BUILD_INTERFACE:tca_options>)
endfunction()

# tca_program(NAME SOURCES c.. DEPENDS target..)
function(tca_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} tca_options)
endfunction()

# C-core is not instrumented: without the TSan option its own threads look like races.
set(TCA_TEST_ENVIRONMENT "TCA_SOURCE=${PROJECT_SOURCE_DIR}"
                         "TSAN_OPTIONS=ignore_noninstrumented_modules=1")

# tca_test_properties(NAME LABELS label.. TIMEOUT s [PROCESSORS n] [ENVIRONMENT NAME=value..])
# What tests of every kind have. TIMEOUT ends what hangs: ten times what the test needs on a slow
# machine, or more. PROCESSORS: those that it keeps busy, 1 unless told. A test labelled gpu has the
# GPUs for itself. Exit code 77 = skipped.
function(tca_test_properties name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "LABELS;ENVIRONMENT" ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" SKIP_RETURN_CODE 77
                       TIMEOUT ${ARG_TIMEOUT}
                       ENVIRONMENT "${TCA_TEST_ENVIRONMENT};${ARG_ENVIRONMENT}")
  if(ARG_PROCESSORS)
    set_tests_properties(${name} PROPERTIES PROCESSORS ${ARG_PROCESSORS})
  endif()
  if(gpu IN_LIST ARG_LABELS)
    set_tests_properties(${name} PROPERTIES RESOURCE_LOCK gpu)
  endif()
endfunction()

# tca_test(FILE.c LABEL label DEPENDS target..)
# LABEL is unit (nothing) or gpu (one GPU).
function(tca_test source)
  cmake_parse_arguments(ARG "" "LABEL" "DEPENDS" ${ARGN})
  get_filename_component(name ${source} NAME_WE)
  tca_program(${name} SOURCES ${source} DEPENDS ${ARG_DEPENDS} cmocka)
  add_test(NAME ${name} COMMAND ${name})
  tca_test_properties(${name} LABELS ${ARG_LABEL} TIMEOUT 600)
endfunction()

# tca_ranks_test(NAME RANKS n PROGRAM target LABELS label.. [ARGUMENTS a..])
# A program as n ranks on this host. LABELS: dist, or gpu where each rank takes a GPU. Leaks are not
# looked for: Open MPI itself keeps memory until the process ends.
function(tca_ranks_test name)
  cmake_parse_arguments(ARG "" "RANKS;PROGRAM" "LABELS;ARGUMENTS" ${ARGN})
  set(processors 2)
  if(gpu IN_LIST ARG_LABELS)
    set(processors)
  endif()
  add_test(NAME ${name} COMMAND ${PROJECT_SOURCE_DIR}/tests/support/mpirun.sh ${ARG_RANKS}
                                $<TARGET_FILE:${ARG_PROGRAM}> ${ARG_ARGUMENTS})
  tca_test_properties(${name} LABELS ${ARG_LABELS} TIMEOUT 600 PROCESSORS ${processors}
                      ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
endfunction()

# tca_python_test(NAME SCRIPT.py LABELS label.. [TIMEOUT s] [PROCESSORS n] [ARGUMENTS a..])
# ARGUMENTS may hold generator expressions ($<TARGET_FILE:tca>).
function(tca_python_test name script)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "LABELS;ARGUMENTS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 1200)
  endif()
  add_test(NAME ${name} COMMAND ${PROJECT_SOURCE_DIR}/tests/support/python.sh
                                ${CMAKE_CURRENT_SOURCE_DIR}/${script} ${ARG_ARGUMENTS})
  tca_test_properties(${name} LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT}
                      PROCESSORS ${ARG_PROCESSORS})
endfunction()
