// Holds GPU memory until it is ended, so that a large card leaves as much free as a small one has.
//   ballast MIB_TO_LEAVE_FREE [DEVICE]
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

int main(int argc, char ** argv) {
    const size_t leave = (argc > 1 ? strtoull(argv[1], nullptr, 10) : 16281) << 20;
    if (cudaSetDevice(argc > 2 ? atoi(argv[2]) : 0) != cudaSuccess) { return 1; }
    size_t free = 0, total = 0;
    void * held = nullptr;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess || free < leave) { return 1; }
    if (cudaMalloc(&held, free - leave) != cudaSuccess) { return 1; }
    cudaMemGetInfo(&free, &total);
    printf("%zu MiB are left\n", free >> 20);
    fflush(stdout);
    pause();
}
