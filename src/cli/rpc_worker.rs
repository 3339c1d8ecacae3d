//! `llm-server rpc-worker`: lends this machine's devices to the server of another one.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use signal_hook::low_level;

use super::{Exit, complain};
use crate::{
    engine::{
        llama::{self, LoadError, Loan},
        rpc::{self, Unusable},
        threads,
    },
    log, systemd,
};

/// Lends this machine's GPUs, or its CPU, to the server of another machine that names it in `engine.rpc`.
///
/// Layers of the model then live here, and each token is computed on both machines in turn. One server at a time is
/// served; what it placed here is freed when it goes. Run the same release on both machines.
///
/// The protocol is llama.cpp's: whoever reaches the port can read and change what is computed, and with some skill run
/// code here. Nothing is authenticated or encrypted. So the port belongs to this machine (through an SSH or VPN tunnel) or
/// to a network in which nobody else is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llm-server rpc-worker
  llm-server rpc-worker --listen 10.0.0.2:50052 --trust-network --devices CUDA0
  ssh -L 50052:127.0.0.1:50052 other-machine      then engine.rpc = [\"127.0.0.1:50052\"]")]
pub struct Args {
    /// IPv4 address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50052")]
    listen: SocketAddrV4,
    /// Listen where other machines can connect: none but the server's can reach this port.
    #[arg(long)]
    trust_network: bool,
    /// Devices to lend, by the engine's names, such as CUDA0,CUDA1 or CPU. Without: every GPU, else the CPU.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    devices: Vec<String>,
    /// Threads of a CPU that is lent. Without: the physical cores this process may use.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
    /// Keep large tensors in this folder, so that the same model need not be sent again. Nothing is ever deleted there.
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(
        "--listen {0} is open to other machines, and the protocol asks nobody who they are; expected 127.0.0.1:PORT, or \
         --trust-network if nobody but the server can reach it"
    )]
    Open(SocketAddrV4),
    #[error("--devices: no device is called {name:?}; this machine has {}", .present.join(", "))]
    Device { name: String, present: Vec<String> },
    #[error("--devices: {name:?} is named twice")]
    Twice { name: String },
    #[error("--listen: cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddrV4,
        source: io::Error,
    },
    #[error("--cache: cannot make {}: {source}", path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Engine(#[from] LoadError),
    #[error("the engine's RPC backend gave up: {0}")]
    Ended(String),
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<&WorkerError> for Exit {
    fn from(error: &WorkerError) -> Self {
        match error {
            WorkerError::Open(_) | WorkerError::Device { .. } | WorkerError::Twice { .. } => {
                Self::Usage
            }
            WorkerError::Listen { .. } | WorkerError::Cache { .. } | WorkerError::System(_) => {
                Self::Failure
            }
            WorkerError::Engine(_) => Self::CannotWork,
            WorkerError::Ended(_) => Self::EngineDied,
        }
    }
}

pub fn run(args: &Args) -> ExitCode {
    if let Err(error) = log::start("info") {
        complain(&error);
        return Exit::Failure.into();
    }
    let Err(error) = work(args);
    tracing::error!("{error}");
    // No exit hooks under threads of the engine.
    low_level::exit(Exit::from(&error).into())
}

fn work(args: &Args) -> Result<std::convert::Infallible, WorkerError> {
    if !args.listen.ip().is_loopback() && !args.trust_network {
        return Err(WorkerError::Open(args.listen));
    }
    llama::init(|why| {
        tracing::error!(why, "the engine died");
        low_level::exit(Exit::EngineDied.into())
    })?;
    let devices = devices(&args.devices)?;
    if let Some(path) = &args.cache {
        fs::create_dir_all(path).map_err(|source| WorkerError::Cache {
            path: path.clone(),
            source,
        })?;
    }
    let listen = free(args.listen)?;
    let lent = devices.join(", ");
    thread::Builder::new()
        .name("ready".into())
        .spawn(move || say_when_ready(listen, &lent))?;
    let loan = Loan {
        listen,
        devices: &devices,
        threads: args.threads.unwrap_or_else(threads::physical_cores),
        cache: args.cache.as_deref(),
    };
    llama::lend(loan).map_err(WorkerError::Ended)
}

/// The devices to lend, each known and named once.
fn devices(wanted: &[String]) -> Result<Vec<String>, WorkerError> {
    if wanted.is_empty() {
        return Ok(llama::worth_lending());
    }
    let present = llama::names();
    for (at, name) in wanted.iter().enumerate() {
        if wanted[..at].contains(name) {
            return Err(WorkerError::Twice { name: name.clone() });
        }
        if !present.contains(name) {
            return Err(WorkerError::Device {
                name: name.clone(),
                present,
            });
        }
    }
    Ok(wanted.to_vec())
}

/// An address that can be listened on, with its port: the backend would say neither what is wrong with it nor which
/// free port it took.
fn free(address: SocketAddrV4) -> Result<SocketAddrV4, WorkerError> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    match bound {
        Ok(SocketAddr::V4(bound)) => Ok(bound),
        Ok(SocketAddr::V6(_)) => Ok(address), // not what was bound
        Err(source) => Err(WorkerError::Listen { address, source }),
    }
}

/// The backend says nothing when it begins to listen, so it is greeted until it answers.
fn say_when_ready(listen: SocketAddrV4, devices: &str) {
    const AGAIN: Duration = Duration::from_millis(10);
    let host = match *listen.ip() {
        Ipv4Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST,
        host => host,
    };
    let own = SocketAddrV4::new(host, listen.port()).to_string();
    while let Err(Unusable::Unreachable { .. }) = rpc::greet(&own, llama::protocol()) {
        thread::sleep(AGAIN);
    }
    tracing::info!(address = %listen, devices, protocol = %llama::protocol(), "lending");
    systemd::ready(&format!("Lending {devices} on {listen}"));
}
