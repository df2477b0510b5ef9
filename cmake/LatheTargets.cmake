# Headers are included as <lathe/folder/name.h>, in the tree (through links made here) as when installed.
set(LATHE_FOLDERS kernels runtime layers optim checkpoint text training)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/lathe)
foreach(folder ${LATHE_FOLDERS})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${folder} ${PROJECT_BINARY_DIR}/include/lathe/${folder} SYMBOLIC)
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/version.h.in ${PROJECT_BINARY_DIR}/include/lathe/version.h @ONLY)

set(LATHE_WARNINGS $<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra> $<$<COMPILE_LANGUAGE:CXX>:-Wpedantic>
  $<$<COMPILE_LANGUAGE:CXX>:-Wshadow> $<$<COMPILE_LANGUAGE:CXX>:-Wconversion> $<$<COMPILE_LANGUAGE:CXX>:-Wno-sign-conversion>)

# lathe_library(<folder> SOURCES <file>... [PUBLIC <target>...] [PRIVATE <target>...] [HEADER_ONLY <target>...]): the archive lathe_<folder>.
# lathe::<folder> is what users of the library link: the archive, or with BUILD_SHARED_LIBS the shared library that LatheLibrary.cmake
# makes of the same objects. Libraries of which only headers are used don't reach the users of an archive.
function(lathe_library folder)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE;HEADER_ONLY" ${ARGN})
  set(target lathe_${folder})
  # Within the tree, archives link archives.
  list(TRANSFORM arg_PUBLIC REPLACE "^lathe::" "lathe_")
  list(TRANSFORM arg_HEADER_ONLY REPLACE "(.+)" "$<BUILD_INTERFACE:\\1>")
  add_library(${target} STATIC ${arg_SOURCES})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE ${LATHE_WARNINGS})
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>)
  target_link_libraries(${target} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE} ${arg_HEADER_ONLY})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${folder})
  if(BUILD_SHARED_LIBS)
    add_library(lathe_shared_${folder} INTERFACE)
    set_target_properties(lathe_shared_${folder} PROPERTIES EXPORT_NAME ${folder})
    target_link_libraries(lathe_shared_${folder} INTERFACE lathe_lathe)
    add_library(lathe::${folder} ALIAS lathe_shared_${folder})
  else()
    add_library(lathe::${folder} ALIAS ${target})
  endif()

  set(objects ${arg_SOURCES})
  list(FILTER objects INCLUDE REGEX "TARGET_OBJECTS")
  set_property(GLOBAL APPEND PROPERTY LATHE_OBJECTS ${objects} $<TARGET_OBJECTS:${target}>)
  set_property(GLOBAL APPEND PROPERTY LATHE_PRIVATE ${arg_PRIVATE})
endfunction()

# lathe_public_headers(<folder> <header>...): what is installed. All other headers are internal. Public headers open their namespace as
# `namespace [[gnu::visibility("default")]] lathe`, which exports what they declare from the shared library; internal ones don't.
function(lathe_public_headers folder)
  set_property(GLOBAL PROPERTY LATHE_HEADERS_${folder} ${ARGN})
endfunction()

# lathe_device_headers(<folder> <header>...): what only kernel files (.cu) include, in the tree and in programs that use Lathe; installed where
# the library has a CUDA backend. They are not public headers: CUDA's language is in them, or the emulation's in its place.
function(lathe_device_headers folder)
  set_property(GLOBAL PROPERTY LATHE_DEVICE_HEADERS_${folder} ${ARGN})
endfunction()

# lathe_test(<name> [CUDA] [WHOLE] SOURCES <file>... LINKS <target>...): one GoogleTest program, which is one CTest test. CUDA: some of its tests
# run on the CUDA backend where there is one. They are skipped where no GPU is; the target cuda_tests and the label cuda are all such programs.
# WHOLE: it runs only where everything is tested (ctest -C Everything).
function(lathe_test name)
  cmake_parse_arguments(arg "CUDA;WHOLE" "" "SOURCES;LINKS" ${ARGN})
  set(target test_${name})
  if(arg_CUDA AND LATHE_CUDA_BACKEND)
    list(APPEND arg_SOURCES needs_gpu.cc)
  endif()
  # Tests reach internals, so they link the archives, not the shared library.
  list(TRANSFORM arg_LINKS REPLACE "^lathe::" "lathe_")
  add_executable(${target} ${arg_SOURCES})
  # Tests are compiled more often than they run, and never time anything: -O1 halves the wait.
  target_compile_options(${target} PRIVATE ${LATHE_WARNINGS} -O1)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE ${arg_LINKS} GTest::gtest GTest::gtest_main)
  set(configurations)
  if(arg_WHOLE)
    set(configurations CONFIGURATIONS Everything)
  endif()
  add_test(NAME ${name} ${configurations} COMMAND ${target})
  set_tests_properties(${name} PROPERTIES TIMEOUT 900)
  if(arg_CUDA AND LATHE_CUDA_BACKEND)
    set_tests_properties(${name} PROPERTIES LABELS cuda)
    if(NOT TARGET cuda_tests)
      add_custom_target(cuda_tests)
    endif()
    add_dependencies(cuda_tests ${target})
    if(NOT LATHE_CUDA STREQUAL "EMULATED")
      target_link_libraries(${target} PRIVATE CUDA::cudart_static)
    endif()
  endif()
  lathe_test_environment(${name})
endfunction()

# lathe_mpi_tests(<name> [WHOLE] <ranks>...): the program of lathe_test(<name>) once more for each number of ranks, by mpirun with --mpi: tests
# <name>_1, <name>_2. What Open MPI asks for is set here: that root may run it, as in a container; more ranks than cores; messages by memory
# alone, without the system call that containers forbid; and nothing that listens beyond this machine (lathe_mpi_environment).
function(lathe_mpi_tests name)
  if(NOT LATHE_MPI_BACKEND OR NOT MPIEXEC_EXECUTABLE)
    return()
  endif()
  cmake_parse_arguments(arg "WHOLE" "" "" ${ARGN})
  set(configurations)
  if(arg_WHOLE)
    set(configurations CONFIGURATIONS Everything)
  endif()
  foreach(ranks ${arg_UNPARSED_ARGUMENTS})
    add_test(NAME ${name}_${ranks} ${configurations} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:test_${name}> --mpi)
    set_tests_properties(${name}_${ranks} PROPERTIES TIMEOUT 120 PROCESSORS 2)
    lathe_test_environment(${name}_${ranks})
    lathe_mpi_environment(${name}_${ranks})
  endforeach()
endfunction()

function(lathe_mpi_environment test)
  set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT
    GTEST_COLOR=no OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
    OMPI_MCA_plm=isolated OMPI_MCA_oob_tcp_if_include=lo PMIX_MCA_ptl_tcp_if_include=lo
    LATHE_CACHE=none # ranks would keep tokens in the user's own folder
    # Open MPI leaves some, in libraries that it unloads, so that they can't be told apart by name; and a library that is loaded before all else
    # (LD_PRELOAD) comes before the sanitizer's.
    ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0)
endfunction()

# lathe_test_environment(<test>): what a test that runs Lathe's code needs of a sanitizer.
function(lathe_test_environment test)
  if(LATHE_ARCHER)
    # libomp's own code isn't compiled for ThreadSanitizer; Archer speaks for it.
    set_tests_properties(${test} PROPERTIES ENVIRONMENT "OMP_TOOL_LIBRARIES=${LATHE_ARCHER};TSAN_OPTIONS=ignore_noninstrumented_modules=1")
  endif()
endfunction()
