# lathe::lathe, the whole library: with BUILD_SHARED_LIBS one shared library, made of the objects of all folders; else all archives.
# docs/decisions/0006-packaging.md says why one.
if(BUILD_SHARED_LIBS)
  get_property(objects GLOBAL PROPERTY LATHE_OBJECTS)
  get_property(private GLOBAL PROPERTY LATHE_PRIVATE)
  list(REMOVE_DUPLICATES private)
  add_library(lathe_lathe SHARED ${objects})
  # Before 1.0 a minor version may change the interface, so it is part of the name that programs ask for (liblathe.so.0.1).
  set_target_properties(lathe_lathe PROPERTIES OUTPUT_NAME lathe LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  target_compile_features(lathe_lathe PUBLIC cxx_std_20)
  target_include_directories(lathe_lathe PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>)
  target_compile_definitions(lathe_lathe PUBLIC ${LATHE_KERNEL_DEFINITIONS})
  target_link_libraries(lathe_lathe PRIVATE ${private})
else()
  add_library(lathe_lathe INTERFACE)
  list(TRANSFORM LATHE_FOLDERS PREPEND lathe_ OUTPUT_VARIABLE archives)
  target_link_libraries(lathe_lathe INTERFACE ${archives})
endif()
set_target_properties(lathe_lathe PROPERTIES EXPORT_NAME lathe)
add_library(lathe::lathe ALIAS lathe_lathe)
