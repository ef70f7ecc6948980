# How this machine compiles attar: the torch and pybind11 of the project's Python, and ccache.

# Python_EXECUTABLE (the presets say .venv) knows where LibTorch lies, unless Torch_DIR or
# CMAKE_PREFIX_PATH already says so.
find_package(Python 3.9 COMPONENTS Interpreter Development.Module)
if(Python_Interpreter_FOUND AND NOT Torch_DIR)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
            "import torch; print(torch.utils.cmake_prefix_path)
try: import pybind11; print(pybind11.get_cmake_dir())
except ImportError: pass"
    OUTPUT_VARIABLE prefixes OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  string(REPLACE "\n" ";" prefixes "${prefixes}")
  list(APPEND CMAKE_PREFIX_PATH ${prefixes})
endif()

# ccache with what a precompiled header needs: time stamps do not count, content does. Paths below
# the tree are hashed relative to it, so a second clone hits what the first one filled.
find_program(ATTAR_CCACHE ccache)
if(ATTAR_CCACHE AND PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${ATTAR_CCACHE})
endif()

# One OpenMP in a process: the wheel's libgomp, where it carries one, serves our parallel regions too.
function(attar_use_openmp_of_torch)
  get_filename_component(folder "${TORCH_LIBRARY}" DIRECTORY)
  file(GLOB carried ${folder}/libgomp*.so*)
  if(carried)
    list(GET carried 0 library)
    set(OpenMP_gomp_LIBRARY ${library} CACHE FILEPATH "The OpenMP runtime of the torch wheel")
  endif()
endfunction()
