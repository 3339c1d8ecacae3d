#include "rpc.h"
#include "guarded.h"

#include "ggml-backend.h"
#include "ggml-rpc.h"

#include <stdexcept>
#include <string>
#include <vector>

// The backend is a plugin, so its functions are asked for by name.
template <typename Function> static Function * find(const char * name) {
    ggml_backend_reg_t plugin = ggml_backend_reg_by_name("RPC");
    void * found = plugin ? ggml_backend_reg_get_proc_address(plugin, name) : nullptr;
    if (!found) { throw std::runtime_error("libggml-rpc.so is not among the engine's backends"); }
    return (Function *) found;
}

void rpc_protocol(uint8_t version[3]) {
    version[0] = RPC_PROTO_MAJOR_VERSION;
    version[1] = RPC_PROTO_MINOR_VERSION;
    version[2] = RPC_PROTO_PATCH_VERSION;
}

bool rpc_is_here(void) { return ggml_backend_reg_by_name("RPC") != nullptr; }

int rpc_join(const char * worker, char ** out) {
    return guarded(out, [&] {
        ggml_backend_reg_t devices = find<decltype(ggml_backend_rpc_add_server)>("ggml_backend_rpc_add_server")(worker);
        if (!devices) { throw std::runtime_error("it lends no device"); }
        ggml_backend_register(devices);
        return 0;
    });
}

int rpc_lend(const char * endpoint, const char * cache, size_t threads, const char * const * devices, size_t n_devices, char ** out) {
    return guarded(out, [&]() -> int {
        std::vector<ggml_backend_dev_t> lent;
        for (size_t i = 0; i < n_devices; i++) {
            ggml_backend_dev_t device = ggml_backend_dev_by_name(devices[i]);
            if (!device) { throw std::runtime_error(std::string("no device is called ") + devices[i]); }
            lent.push_back(device);
        }
        find<decltype(ggml_backend_rpc_start_server)>("ggml_backend_rpc_start_server")(endpoint, cache, threads, n_devices, lent.data());
        throw std::runtime_error("it stopped listening");
    });
}
