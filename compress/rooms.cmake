# One CMake target to a room. Public include root is the top of the tree, so every include names
# its room: #include "compress/core/model.h".

add_library(attar_warnings INTERFACE)
target_compile_options(attar_warnings INTERFACE -Wall -Wextra -Wconversion -Wno-sign-conversion
                       -Wno-missing-field-initializers)
# GCC 12 sees overflows in std::string and std::vector that are not there (GCC bugs 105329, 105651).
target_compile_options(attar_warnings INTERFACE
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-stringop-overflow;-Wno-stringop-overread;-Wno-array-bounds>)
if(PROJECT_IS_TOP_LEVEL)
  target_compile_options(attar_warnings INTERFACE -Werror)
endif()

add_library(attar_sanitizers INTERFACE)
if(ATTAR_SANITIZE)
  target_compile_options(attar_sanitizers INTERFACE -fsanitize=address,undefined
                                                    -fno-sanitize-recover=undefined
                                                    -fno-omit-frame-pointer)
  target_link_options(attar_sanitizers INTERFACE -fsanitize=address,undefined)
endif()

# LibTorch and the OpenMP that comes with it, for the rooms that ask for TORCH.
add_library(attar_torch INTERFACE)
target_link_libraries(attar_torch INTERFACE attar::libtorch OpenMP::OpenMP_CXX)
set_target_properties(attar_torch PROPERTIES EXPORT_NAME torch)


# attar_room(NAME SOURCES ... [DEPENDS rooms and libraries ...] [TORCH])
# TORCH: the room works on tensors; it shares one precompiled header with the others.
function(attar_room name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;DEPENDS")
  add_library(attar_${name} STATIC ${arg_SOURCES})
  add_library(attar::${name} ALIAS attar_${name})
  set_target_properties(attar_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(attar_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                  $<INSTALL_INTERFACE:include/attar>)
  target_link_libraries(attar_${name} PUBLIC ${arg_DEPENDS}
                                      PRIVATE $<BUILD_INTERFACE:attar_warnings>
                                              $<BUILD_INTERFACE:attar_sanitizers>)
  if(arg_TORCH)
    target_link_libraries(attar_${name} PUBLIC attar_torch)
    attar_precompile(attar_${name})
  endif()
  set_property(GLOBAL APPEND PROPERTY ATTAR_ROOMS attar_${name})
endfunction()

# One precompiled header for everything that works on tensors. ccache can only keep what includes it
# if gcc's preprocessor names it in its output.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  set(attar_pch_flags -fpch-preprocess)
endif()
function(attar_precompile target)
  if(NOT TARGET attar_precompiled)
    if(NOT EXISTS ${PROJECT_BINARY_DIR}/precompiled.cpp)
      file(WRITE ${PROJECT_BINARY_DIR}/precompiled.cpp "")
    endif()
    add_library(attar_precompiled OBJECT ${PROJECT_BINARY_DIR}/precompiled.cpp)
    target_link_libraries(attar_precompiled PRIVATE attar_torch attar_warnings attar_sanitizers)
    target_compile_options(attar_precompiled PRIVATE ${attar_pch_flags})
    target_precompile_headers(attar_precompiled PRIVATE
      <ATen/core/Tensor.h> <ATen/TensorOperators.h> <nlohmann/json.hpp> <algorithm> <array> <filesystem> <functional>
      <map> <memory> <optional> <span> <string> <string_view> <variant> <vector>)
  endif()
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:attar_warnings>
                                          $<BUILD_INTERFACE:attar_sanitizers>)
  target_compile_options(${target} PRIVATE ${attar_pch_flags})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)  # gcc takes a precompiled header only under the flags that made it
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM attar_precompiled)
endfunction()
