# How this machine compiles attar: with the project's Python, whose torch it links, and with ccache.

if(PROJECT_IS_TOP_LEVEL AND NOT Python_EXECUTABLE AND EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  set(Python_EXECUTABLE ${PROJECT_SOURCE_DIR}/.venv/bin/python)
endif()
find_package(Python 3.9 COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
if(Python_Interpreter_FOUND)  # where find_package(pybind11) looks
  execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir OUTPUT_VARIABLE pybind11_folder
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND CMAKE_PREFIX_PATH ${pybind11_folder})
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
