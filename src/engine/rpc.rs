//! Whether a worker can be used, found out before llama.cpp's RPC backend is let near it: that one waits without end for
//! who does not answer, and aborts on what it does not understand.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long a machine on the way may take to let us in.
const REACH: Duration = Duration::from_secs(5);
/// How long a worker that has let us in may take to answer. It frees the memory of its last server first.
const ANSWER: Duration = Duration::from_secs(10);

/// Major, minor and patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub [u8; 3]);

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(out, "{major}.{minor}.{patch}")
    }
}

/// Why a worker of `engine.rpc` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("engine.rpc: libggml-rpc.so is not among the engine's backends")]
    NoPlugin,
    #[error("engine.rpc: no IPv4 address is known for the worker {worker}{}", because(.source.as_ref()))]
    Unknown {
        worker: String,
        source: Option<io::Error>,
    },
    #[error(
        "engine.rpc: the worker {worker} cannot be reached: {source}; does `llm-server rpc-worker` run there?"
    )]
    Unreachable { worker: String, source: io::Error },
    #[error(
        "engine.rpc: the worker {worker} lets nobody in within {} s: it serves one server at a time, and may have one",
        ANSWER.as_secs()
    )]
    Silent { worker: String },
    #[error("engine.rpc: what listens on {worker} is no worker of this engine: {source}")]
    Stranger { worker: String, source: io::Error },
    #[error(
        "engine.rpc: the worker {worker} speaks version {theirs} of the protocol, this engine {ours}; run the same \
         release of llm-server on both machines"
    )]
    OtherVersion {
        worker: String,
        theirs: Version,
        ours: Version,
    },
    #[error("engine.rpc: the worker {worker} cannot be used: {why}")]
    Refused { worker: String, why: String },
}

fn because(source: Option<&io::Error>) -> String {
    source.map_or_else(String::new, |error| format!(": {error}"))
}

/// Says hello to the worker at `host:port` and leaves again.
pub(crate) fn greet(worker: &str, ours: Version) -> Result<(), Unusable> {
    let unknown = |source| Unusable::Unknown {
        worker: worker.to_owned(),
        source,
    };
    let address = worker
        .to_socket_addrs()
        .map_err(|error| unknown(Some(error)))?
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| unknown(None))?;
    let mut stream =
        TcpStream::connect_timeout(&address, REACH).map_err(|source| Unusable::Unreachable {
            worker: worker.to_owned(),
            source,
        })?;
    let theirs = hello(&mut stream).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Unusable::Silent {
            worker: worker.to_owned(),
        },
        _ => Unusable::Stranger {
            worker: worker.to_owned(),
            source,
        },
    })?;
    if theirs == ours {
        Ok(())
    } else {
        Err(Unusable::OtherVersion {
            worker: worker.to_owned(),
            theirs,
            ours,
        })
    }
}

/// The command HELLO: its number, the size of what follows, and 24 bytes about RDMA, which is not used. The answer is a
/// size, the version and as many bytes again. Numbers are the machine's own, as ggml sends them.
fn hello(stream: &mut TcpStream) -> io::Result<Version> {
    const HELLO: u8 = 14;
    const CAPABILITIES: usize = 24;
    const ANSWERED: usize = 4 + CAPABILITIES;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let mut request = vec![HELLO];
    request.extend((CAPABILITIES as u64).to_ne_bytes());
    request.extend([0; CAPABILITIES]);
    stream.write_all(&request)?;
    let mut size = [0; 8];
    stream.read_exact(&mut size)?;
    if u64::from_ne_bytes(size) != ANSWERED as u64 {
        return Err(io::Error::other("its answer to a greeting is none"));
    }
    let mut answer = [0; ANSWERED];
    stream.read_exact(&mut answer)?;
    let [major, minor, patch, ..] = answer;
    Ok(Version([major, minor, patch]))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    const OURS: Version = Version([7, 0, 0]);

    /// Takes one connection, reads a greeting and answers with `answer`.
    fn worker(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 33]).unwrap();
            stream.write_all(&answer).unwrap();
        });
        address.to_string()
    }

    fn speaking(version: [u8; 3]) -> String {
        let mut answer = 28_u64.to_ne_bytes().to_vec();
        answer.extend(version);
        answer.extend([0; 25]);
        worker(answer)
    }

    #[test]
    fn a_worker_of_the_same_version_is_welcome() {
        greet(&speaking([7, 0, 0]), OURS).unwrap();
    }

    #[test]
    fn a_worker_of_another_version_is_refused_with_both_versions() {
        let worker = speaking([7, 0, 1]);
        let said = greet(&worker, OURS).unwrap_err().to_string();
        assert!(
            said.contains(&worker) && said.contains("7.0.1") && said.contains("7.0.0"),
            "{said}"
        );
    }

    #[test]
    fn what_is_no_worker_is_refused() {
        for answer in [
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            b"SSH".to_vec(),
            Vec::new(),
        ] {
            let refused = greet(&worker(answer.clone()), OURS);
            assert!(
                matches!(refused, Err(Unusable::Stranger { .. })),
                "{answer:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_refused_by_its_name() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let worker = free.local_addr().unwrap().to_string();
        drop(free);
        let refused = greet(&worker, OURS);
        assert!(
            matches!(&refused, Err(Unusable::Unreachable { worker: named, .. }) if *named == worker),
            "{refused:?}"
        );
    }
}
