//! Connections: accepted, bounded in number and patience, and let go one by one when the server stops.

use std::{future::pending, io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::listen::{Bound, Owner, Socket, SocketFile};
use crate::config::Limits;

/// Descriptors kept back from connections: weights, libraries, logs, downloads.
const KEPT_DESCRIPTORS: u64 = 64;
/// More connections than this serve nobody: the engine runs a few sequences at a time.
const MOST_CONNECTIONS: u64 = 4096;

/// How long the first request may be on its way when the drain begins.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The open side of the server. Dropping it closes the sockets.
pub(crate) struct Http {
    /// Accept loops; aborted on drop, which closes their sockets.
    _loops: JoinSet<()>,
    _files: Vec<SocketFile>,
    lines: Lines,
}

#[derive(Clone)]
struct Lines {
    /// Connections accepted before the drain began; it waits for these.
    open: TaskTracker,
    /// Connections accepted later, to be told that there is nothing to get.
    late: TaskTracker,
    drain: CancellationToken,
    places: Arc<Semaphore>,
    router: Router,
    patience: Patience,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a request's header, and between two requests.
    receive: Duration,
    /// To read what is there for it.
    send: Duration,
}

impl Patience {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            receive: limits.receive,
            send: limits.send,
        }
    }
}

impl Http {
    /// Serves `router` on all sockets at once. Call inside the runtime.
    pub(crate) fn start(
        sockets: Vec<Bound>,
        router: Router,
        patience: Patience,
    ) -> io::Result<Self> {
        let lines = Lines {
            open: TaskTracker::new(),
            late: TaskTracker::new(),
            drain: CancellationToken::new(),
            places: Arc::new(Semaphore::new(most_connections())),
            router,
            patience,
        };
        let mut loops = JoinSet::new();
        let mut files = Vec::new();
        for Bound {
            socket,
            owner,
            file,
            ..
        } in sockets
        {
            let left = lines.clone().left(owner);
            match socket {
                Socket::Tcp(listener) => {
                    let accept = accept_tcp(TcpListener::from_std(listener)?, lines.clone());
                    loops.spawn(until(left, accept))
                }
                Socket::Unix(listener) => {
                    let accept = accept_unix(UnixListener::from_std(listener)?, lines.clone());
                    loops.spawn(until(left, accept))
                }
            };
            files.extend(file);
        }
        Ok(Self {
            _loops: loops,
            _files: files,
            lines,
        })
    }

    /// Begins the drain: a socket of the service manager is left to the next process from here on.
    pub(crate) fn leave(&self) {
        self.lines.drain.cancel();
    }

    /// Lets every connection go after the answer it is giving (idle ones at once), and waits for them.
    /// New ones are still accepted and get one answer each, except on sockets of the service manager: there
    /// they wait for the next process. The drain begins at the first poll.
    pub(crate) fn finish(&self) -> impl Future<Output = ()> + Send + 'static {
        let lines = self.lines.clone();
        async move {
            lines.drain.cancel();
            lines.open.close();
            lines.open.wait().await;
        }
    }

    /// A wait for those who came during the drain to have been turned away.
    pub(crate) async fn turned_away(&self) {
        self.lines.late.close();
        self.lines.late.wait().await;
    }
}

impl Lines {
    /// Ends when a socket of this owner is left to the next process.
    async fn left(self, owner: Owner) {
        match owner {
            Owner::ServiceManager => self.drain.cancelled().await,
            Owner::Us => pending().await,
        }
    }

    fn take<S>(&self, stream: S, place: tokio::sync::OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let late = self.drain.is_cancelled();
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.patience.send));
        let router = TowerToHyperService::new(self.router.clone());
        let asked = CancellationToken::new();
        let ask = asked.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.receive)
            .keep_alive(!late)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                service_fn(move |request| {
                    ask.cancel();
                    router.call(request)
                }),
            );
        let drain = self.drain.clone();
        let conversation = async move {
            let mut connection = pin!(connection);
            let last = async {
                drain.cancelled().await;
                // Closed now, a connection that nothing was read from yet would lose its request.
                let _ = timeout(FIRST_REQUEST, asked.cancelled()).await;
            };
            let end = tokio::select! {
                end = connection.as_mut() => end,
                () = last, if !late => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = end {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        };
        let tracker = if late { &self.late } else { &self.open };
        tracker.spawn(conversation);
    }
}

/// Accepts until the socket is left. Nobody is lost between: what was accepted is taken without a pause.
async fn until(left: impl Future<Output = ()>, accept: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = left => {}
        () = accept => {}
    }
}

async fn accept_tcp(listener: TcpListener, lines: Lines) {
    while let Ok(place) = Arc::clone(&lines.places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Tokens are small and each is wanted at once.
                let _ = stream.set_nodelay(true);
                lines.take(stream, place);
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, lines: Lines) {
    while let Ok(place) = Arc::clone(&lines.places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => lines.take(stream, place),
            Err(error) => pause(&error).await,
        }
    }
}

/// A client that gave up before `accept` is nothing; a machine out of descriptors or memory stays so
/// for a while and signals nobody when it is over, so this is the one place that waits by the clock.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Below the limit of open files, which is raised as far as it may be, so that a flood of connections cannot starve the
/// rest of the process.
fn most_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = MOST_CONNECTIONS + KEPT_DESCRIPTORS;
    let most = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // Refused: the old limit holds.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = files
        .saturating_sub(KEPT_DESCRIPTORS)
        .clamp(1, MOST_CONNECTIONS);
    usize::try_from(most).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let endless = || async {
            let zeros = stream::repeat_with(|| Ok::<_, io::Error>(vec![b'0'; 1024]));
            Body::from_stream(zeros)
        };
        let lines = Lines {
            open: TaskTracker::new(),
            late: TaskTracker::new(),
            drain: CancellationToken::new(),
            places: Arc::new(Semaphore::new(1)),
            router: Router::new().route("/", get(endless)),
            patience: Patience {
                receive: Duration::from_mins(1),
                send: Duration::from_millis(200),
            },
        };
        let (mut client, server) = duplex(4096);
        let place = Arc::clone(&lines.places).acquire_owned().await.unwrap();
        lines.take(server, place);
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .unwrap();
        // It answers, and then waits for its reader, but not for ever.
        let _again = lines.places.acquire().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.starts_with(b"HTTP/1.1 200"));
        assert!(rest.len() <= 4096);
    }
}
