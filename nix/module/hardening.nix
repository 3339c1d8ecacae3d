# What a unit of llm-server may do: nothing but what serving a model needs. The units in contrib/systemd say the same
# (nix/tests/units.nix compares).
let
  everywhere = {
    CapabilityBoundingSet = "";
    DevicePolicy = "closed";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NoNewPrivileges = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    UMask = "0077";
    # No dump of some twenty gigabytes of weights, and of what clients said.
    LimitCORE = 0;
  };
in
{
  # The server inherits its socket, so it needs no network of its own.
  serve = everywhere // {
    PrivateNetwork = true;
    RestrictAddressFamilies = "AF_UNIX";
    IPAddressDeny = "any";
    # /proc/meminfo tells how much fits.
    ProcSubset = "all";
    # `engine.load = "mlock"` and weights that a GPU reads from host memory.
    LimitMEMLOCK = "infinity";
    PrivateDevices = true;
    # Threads may be bound to CPUs (`engine.cpu_mask`) and memory to nodes (`engine.numa`), so @resources stays.
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
    ];
  };

  # On top of `serve` where there is an NVIDIA GPU.
  gpu = {
    PrivateDevices = false;
    # Since driver 545 the group of nodes is called `nvidia`, before it was `nvidia-frontend`; `nvidia-uvm` and
    # `nvidia-caps` have their own.
    DeviceAllow = [ "char-nvidia* rw" ];
  };

  # On top of `serve` where other machines lend their devices. Their addresses are let through one by one.
  rpc = {
    PrivateNetwork = false;
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_UNIX"
    ];
  };

  # Lends this machine's devices. What reaches its port can make it do anything, so it may do next to nothing.
  worker = everywhere // {
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_UNIX"
    ];
    IPAddressDeny = "any";
    ProcSubset = "all";
    PrivateDevices = true;
    SystemCallFilter = [
      "@system-service"
      "~@privileged @resources"
    ];
  };

  # On top of `serve` where images are fetched (`settings.images.fetch`): names are asked for and servers connected to, which
  # the program holds to public addresses itself; a resolver may well be on a private one.
  images = {
    PrivateNetwork = false;
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_INET6"
      "AF_UNIX"
    ];
    IPAddressDeny = [ ];
  };

  # The download: a network, and nothing else of the machine.
  fetch = everywhere // {
    PrivateDevices = true;
    ProcSubset = "pid";
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_INET6"
      "AF_UNIX"
    ];
    SystemCallFilter = [
      "@system-service"
      "~@privileged @resources"
    ];
  };
}
