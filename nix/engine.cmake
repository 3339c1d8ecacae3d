# Settings for the engine's build; CMake reads this at the end of each project() of it.

# Relative, so that backends are installed where the crate wants them and no folder of the build is named
# in the library. The server names the folder itself.
set(GGML_BACKEND_DIR backends)

# Libraries find each other beside themselves; backends find them one folder up.
set(CMAKE_INSTALL_RPATH "$ORIGIN;$ORIGIN/..")
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)

# Nothing of the machine decides what is built. llama.cpp would use OpenSSL for downloads, which are ours.
set(CMAKE_DISABLE_FIND_PACKAGE_OpenSSL ON)
set(CMAKE_DISABLE_FIND_PACKAGE_Git ON)
set(GGML_CCACHE OFF)
