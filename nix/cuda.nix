# libggml-cuda.so from the ggml tree of the pinned engine crate, and cuda.json, which says what it was built with.
# Building needs no GPU. nvcc leaves temporary names in its output, so two builds may differ in bytes.
{
  lib,
  cmake,
  cudaPackages,
  autoAddDriverRunpath,
  engineCrate,
  engineVersion,
  architectures ? null,
}:
let
  named =
    if architectures != null then
      lib.concatStringsSep ";" architectures
    else
      cudaPackages.flags.cmakeCudaArchitecturesString;
  record = {
    version = cudaPackages.cudaMajorMinorVersion;
    architectures = lib.splitString ";" named;
  };
in
cudaPackages.backendStdenv.mkDerivation {
  pname = "llm-server-ggml-cuda";
  version = engineVersion;

  src = "${engineCrate}/llama.cpp/ggml";
  # The crate leaves out one file that CMake wants.
  postPatch = "touch ggml.pc.in";

  strictDeps = true;
  nativeBuildInputs = [
    cmake
    cudaPackages.cuda_nvcc
    autoAddDriverRunpath
  ];
  buildInputs = [
    cudaPackages.cuda_cccl
    cudaPackages.cuda_cudart
    cudaPackages.libcublas
  ];

  cmakeFlags = [
    (lib.cmakeBool "BUILD_SHARED_LIBS" true)
    (lib.cmakeBool "GGML_BACKEND_DL" true)
    (lib.cmakeBool "GGML_CPU" false)
    (lib.cmakeBool "GGML_CUDA" true)
    (lib.cmakeBool "GGML_CCACHE" false)
    (lib.cmakeBool "GGML_BUILD_TESTS" false)
    (lib.cmakeBool "GGML_BUILD_EXAMPLES" false)
    (lib.cmakeFeature "CMAKE_CUDA_ARCHITECTURES" named)
  ];
  buildFlags = [ "ggml-cuda" ];

  # libggml-base.so.0 is the server's own: it is loaded before any plugin.
  installPhase = ''
    runHook preInstall
    install -Dm755 -t "$out/lib" "$(find . -name libggml-cuda.so -print -quit)"
    cp ${builtins.toFile "cuda.json" (builtins.toJSON record)} "$out/lib/cuda.json"
    runHook postInstall
  '';

  passthru = { inherit record; };
  meta = {
    description = "CUDA plugin of llm-server's engine";
    license = lib.licenses.mit;
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
