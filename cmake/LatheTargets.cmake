# Headers are included as <lathe/folder/name.h>, in the tree (through links made here) as when installed.
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/lathe)
foreach(folder kernels runtime layers optim checkpoint text training)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${folder} ${PROJECT_BINARY_DIR}/include/lathe/${folder} SYMBOLIC)
endforeach()

set(LATHE_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)

# lathe_library(<folder> SOURCES <file>... [PUBLIC <target>...] [PRIVATE <target>...]): the target lathe_<folder>, alias lathe::<folder>.
function(lathe_library folder)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  set(target lathe_${folder})
  add_library(${target} STATIC ${arg_SOURCES})
  add_library(lathe::${folder} ALIAS ${target})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE ${LATHE_WARNINGS})
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>)
  target_link_libraries(${target} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
endfunction()

# lathe_test(<name> SOURCES <file>... LINKS <target>...): one GoogleTest program, each of its cases a CTest test.
function(lathe_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS" ${ARGN})
  set(target test_${name})
  add_executable(${target} ${arg_SOURCES})
  # Tests are compiled more often than they run, and never time anything: -O1 halves the wait.
  target_compile_options(${target} PRIVATE ${LATHE_WARNINGS} -O1)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE ${arg_LINKS} GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${target})
  set_tests_properties(${name} PROPERTIES TIMEOUT 900)
  if(LATHE_ARCHER)
    # libomp's own code isn't compiled for ThreadSanitizer; Archer speaks for it.
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "OMP_TOOL_LIBRARIES=${LATHE_ARCHER};TSAN_OPTIONS=ignore_noninstrumented_modules=1")
  endif()
endfunction()
