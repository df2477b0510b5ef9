lathe_test(kernels_elementwise CUDA
  SOURCES kernels/activation_test.cc kernels/cast_test.cc kernels/dropout_test.cc kernels/gather_test.cc kernels/layernorm_test.cc kernels/philox_test.cc
    kernels/reduce_test.cc
  LINKS lathe::kernels)

# All kernels of both instruction sets, not only the element-wise ones.
add_test(NAME kernels_targets
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/kernels/targets_test.sh ${CMAKE_NM} ${CMAKE_OBJDUMP} $<TARGET_OBJECTS:lathe_kernels_v3> --
    $<TARGET_OBJECTS:lathe_kernels_v4>
  COMMAND_EXPAND_LISTS)
