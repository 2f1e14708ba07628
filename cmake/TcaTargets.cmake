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

# tca_test(FILE.c LABEL label [RANKS n] [TIMEOUT s] DEPENDS target..)
# LABEL is unit (nothing), gpu (one GPU), dist (several ranks) or e2e. Exit code 77 = skipped.
function(tca_test source)
  cmake_parse_arguments(ARG "" "LABEL;RANKS;TIMEOUT" "DEPENDS" ${ARGN})
  get_filename_component(name ${source} NAME_WE)
  tca_program(${name} SOURCES ${source} DEPENDS ${ARG_DEPENDS} cmocka)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(ARG_RANKS)
    add_test(NAME ${name}
             COMMAND ${PROJECT_SOURCE_DIR}/tests/support/mpirun.sh ${ARG_RANKS} $<TARGET_FILE:${name}>)
    set_tests_properties(${name} PROPERTIES PROCESSORS 2)
  else()
    add_test(NAME ${name} COMMAND ${name})
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} SKIP_RETURN_CODE 77
                       TIMEOUT ${ARG_TIMEOUT}
                       ENVIRONMENT "${TCA_TEST_ENVIRONMENT}")
  if(ARG_LABEL STREQUAL gpu)
    set_tests_properties(${name} PROPERTIES RESOURCE_LOCK gpu)
  endif()
endfunction()

# tca_python_test(NAME SCRIPT.py LABELS label.. [TIMEOUT s] [ARGUMENTS a..])
# ARGUMENTS may hold generator expressions ($<TARGET_FILE:tca>). Exit code 77 = skipped.
function(tca_python_test name script)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LABELS;ARGUMENTS" ${ARGN})
  add_test(NAME ${name} COMMAND ${PROJECT_SOURCE_DIR}/tests/support/python.sh
                                ${CMAKE_CURRENT_SOURCE_DIR}/${script} ${ARG_ARGUMENTS})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" SKIP_RETURN_CODE 77
                       TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${TCA_TEST_ENVIRONMENT}")
endfunction()
