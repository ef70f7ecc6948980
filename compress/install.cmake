# `cmake --install`: the rooms as attar::<room>, their headers under include/attar, the program, and
# what find_package(attar) needs. tests/consumer proves that it works.
include(CMakePackageConfigHelpers)

get_property(rooms GLOBAL PROPERTY ATTAR_ROOMS)
install(TARGETS ${rooms} attar_torch EXPORT attar ARCHIVE DESTINATION lib)
if(TARGET attar)
  install(TARGETS attar RUNTIME DESTINATION bin)
endif()
foreach(room ${rooms})
  get_target_property(folder ${room} SOURCE_DIR)
  file(RELATIVE_PATH below ${PROJECT_SOURCE_DIR} ${folder})
  install(DIRECTORY ${folder}/ DESTINATION include/attar/${below} FILES_MATCHING PATTERN "*.h")
endforeach()

set(config_folder lib/cmake/attar)
install(EXPORT attar NAMESPACE attar:: FILE attarTargets.cmake DESTINATION ${config_folder})
configure_package_config_file(${PROJECT_SOURCE_DIR}/compress/attarConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/attarConfig.cmake
                              INSTALL_DESTINATION ${config_folder} PATH_VARS ATTAR_TORCH_ROOT)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attarConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attarConfig.cmake ${PROJECT_BINARY_DIR}/attarConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/compress/libtorch.cmake
        DESTINATION ${config_folder})
