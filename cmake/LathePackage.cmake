# What `cpack` makes of what `cmake --install` installs: a Debian package, or by -G TGZ an archive.
set(CPACK_GENERATOR DEB CACHE STRING "What cpack makes, unless it is told by -G")
set(CPACK_PACKAGE_CONTACT "The Lathe authors <nobody@lathe.invalid>" CACHE STRING "Maintainer of the packages that cpack makes")
set(CPACK_PACKAGE_VENDOR "Lathe")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Fine-tunes published BERT models: a command and a C++ library")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"The lathe command fine-tunes a published BERT to classify texts, on the CPU and
without padding, and leaves a folder that Hugging Face opens. The library does
the same for C++ programs; its headers, and the files that CMake and pkg-config
need, are in the package.")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY >=)
if(NOT BUILD_SHARED_LIBS) # to build programs with the archives
  set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libfmt-dev, libutf8proc-dev, libdnnl-dev, libopenmpi-dev, pkg-config")
endif()
include(CPack)
