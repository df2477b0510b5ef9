set(cuda_tests)
if(LATHE_CUDA_BACKEND)
  set(cuda_tests runtime/cuda_device_test.cc runtime/cuda_graph_test.cc)
endif()
lathe_test(runtime CUDA
  SOURCES runtime/atomic_file_test.cc runtime/content_hash_test.cc runtime/device_test.cc runtime/error_test.cc runtime/file_lock_test.cc runtime/graph_test.cc runtime/host_memory_test.cc
    runtime/parameters_test.cc runtime/processors_test.cc runtime/random_test.cc runtime/recompute_test.cc runtime/tape_test.cc runtime/tensor_test.cc ${cuda_tests}
  LINKS lathe::runtime)

if(LATHE_KERNEL_BACKEND STREQUAL "cuda")
  add_library(range_listener MODULE EXCLUDE_FROM_ALL runtime/listener.cc)
  target_compile_options(range_listener PRIVATE ${LATHE_WARNINGS})
  target_link_libraries(range_listener PRIVATE CUDA::cudart_static)
  add_dependencies(cuda_tests range_listener)
  add_test(NAME runtime_ranges
    COMMAND ${CMAKE_CURRENT_LIST_DIR}/ranges_test.sh $<TARGET_FILE:range_listener> $<TARGET_FILE:test_runtime> $<TARGET_FILE:test_kernels_elementwise>)
endif()

# What the ranks of a job do together: once as a single process, and under mpirun.
set(mpi_tests)
set(mpi_libraries)
if(LATHE_MPI_BACKEND)
  set(mpi_tests runtime/mpi_communicator_test.cc)
  set(mpi_libraries MPI::MPI_CXX)
endif()
if(LATHE_NCCL_BACKEND STREQUAL "EMULATED")
  list(APPEND mpi_tests runtime/nccl_communicator_test.cc)
endif()
lathe_test(communicator
  SOURCES runtime/communicator_main.cc runtime/communicator_test.cc ${mpi_tests}
  LINKS lathe::runtime fmt::fmt ${mpi_libraries})
lathe_mpi_tests(communicator 1 2 3 4)
lathe_test(without_mpi SOURCES runtime/no_mpi_test.cc ${PROJECT_SOURCE_DIR}/runtime/no_mpi.cc LINKS lathe::runtime)
