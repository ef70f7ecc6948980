# LibTorch as it lies in a torch wheel or a LibTorch archive, CPU or CUDA -> attar::libtorch.
#
#   ATTAR_TORCH_ROOT  the folder that holds its include/ and lib/; by default that of the torch which
#                     Python_EXECUTABLE imports
#
# Not the wheel's own TorchConfig: for a CUDA build that one refuses a machine without a CUDA
# toolkit, which attar does not need. Installed beside attarConfig.cmake, which includes it.

if(NOT ATTAR_TORCH_ROOT AND Python_EXECUTABLE)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
            "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE ATTAR_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(version_header ${ATTAR_TORCH_ROOT}/include/torch/headeronly/version.h)
if(NOT EXISTS ${version_header})
  message(FATAL_ERROR "No LibTorch in '${ATTAR_TORCH_ROOT}' (looked for ${version_header}). "
                      "Run 'make build', which makes .venv with torch in it, or set ATTAR_TORCH_ROOT "
                      "or Python_EXECUTABLE.")
endif()
file(STRINGS ${version_header} version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE "[^0-9]+" "." torch_version "${version_lines}")
string(REGEX MATCH "[0-9]+\\.[0-9]+" torch_version "${torch_version}")
if(torch_version VERSION_LESS 2.13)
  message(FATAL_ERROR "LibTorch in ${ATTAR_TORCH_ROOT} is ${torch_version}; attar needs 2.13")
endif()
if(NOT TARGET attar::libtorch)
  message(STATUS "Found LibTorch ${torch_version}: ${ATTAR_TORCH_ROOT}")
endif()

if(NOT TARGET attar::libtorch)
  set(torch_lib ${ATTAR_TORCH_ROOT}/lib)
  add_library(attar::libtorch INTERFACE IMPORTED)
  target_include_directories(attar::libtorch SYSTEM INTERFACE
    ${ATTAR_TORCH_ROOT}/include ${ATTAR_TORCH_ROOT}/include/torch/csrc/api/include)
  target_compile_definitions(attar::libtorch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
  # Backends register themselves when they are loaded, though no symbol of theirs is asked for. One
  # item, so that nothing comes between the flags; libc10 by its path brings the rpath for all.
  set(backends ${torch_lib}/libtorch.so,${torch_lib}/libtorch_cpu.so)
  if(EXISTS ${torch_lib}/libtorch_cuda.so)
    string(APPEND backends ,${torch_lib}/libtorch_cuda.so,--allow-shlib-undefined)
  endif()
  target_link_libraries(attar::libtorch INTERFACE
    -Wl,--push-state,--no-as-needed,${backends},--pop-state ${torch_lib}/libc10.so)
endif()

# One OpenMP in a process: the libgomp that the wheel carries, if it does, serves our regions too.
file(GLOB carried_openmp ${ATTAR_TORCH_ROOT}/lib/libgomp*.so*)
if(carried_openmp)
  list(GET carried_openmp 0 carried_openmp)
  set(OpenMP_gomp_LIBRARY ${carried_openmp} CACHE FILEPATH "The OpenMP runtime of the torch wheel")
endif()
