// llama.cpp's RPC backend: devices of other machines, and this machine's devices for others. Each call returns 0, or
// GUARD_FAILED with a message in `out`, which `guard_free` takes back.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Major, minor and patch version of the protocol that this engine speaks.
void rpc_protocol(uint8_t version[3]);

// Whether the backend's plugin is loaded.
bool rpc_is_here(void);

// Adds the devices of the worker at `host:port` to those of this process, for as long as it lives. Waits for ever for a
// worker that takes the connection and says nothing.
int rpc_join(const char * worker, char ** out);

// Lends the named devices at `address:port` to one client after the other; comes back only when it failed.
int rpc_lend(const char * endpoint, const char * cache, size_t threads, const char * const * devices, size_t n_devices, char ** out);

#ifdef __cplusplus
}
#endif
