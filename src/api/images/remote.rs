//! Images that a request gives by their addresses: fetched where the configuration allows it, and from public servers only.

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use ureq::{
    Agent, Body,
    http::{Response, header},
    tls::TlsConfig,
    unversioned::transport::DefaultConnector,
};
use url::Url;

use super::Internet;
use crate::{
    api::error::ApiError,
    config::{ImagesConfig, RemoteImages},
};

/// Images fetched at the same time: each takes a thread, of which there are few.
static FETCHERS: Semaphore = Semaphore::const_new(4);

const MOST_REDIRECTS: u32 = 3;

/// Where a request's images may come from.
pub(in crate::api) struct Remote {
    policy: Arc<ImagesConfig>,
    internet: Internet,
}

/// Why an image was not fetched, in words for the client. They do not tell apart how a host could not be reached: whoever
/// asks shall not learn here what lies in our own network.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfetched {
    #[error("it is no address such as https://example.org/cat.png")]
    Address,
    #[error("images are fetched by https: only")]
    Scheme,
    #[error("a name and password in an address are not sent")]
    Credentials,
    #[error("images are fetched from a scheme's own port only")]
    Port,
    #[error("images are fetched from these hosts only: {0}")]
    Host(String),
    #[error("no public server can be reached there")]
    Unreachable,
    #[error("it could not be fetched within {0:?}")]
    Slow(Duration),
    #[error("its server answers with status {0}")]
    Status(u16),
    #[error("it is redirected more than {MOST_REDIRECTS} times")]
    Redirects,
    #[error("it is redirected, but {0}")]
    Redirect(Box<Unfetched>),
    #[error("the image is larger than {0} bytes")]
    Large(u64),
}

/// What an answer is.
enum Answer {
    File(Vec<u8>),
    Moved(Url),
}

impl Remote {
    pub(in crate::api) fn new(policy: Arc<ImagesConfig>, internet: Internet) -> Self {
        Self { policy, internet }
    }

    pub(super) fn is_off(&self) -> bool {
        self.policy.fetch == RemoteImages::Never
    }

    /// An address that may be asked, as far as can be told without asking.
    pub(super) fn address(&self, text: &str) -> Result<Url, Unfetched> {
        let mut url = Url::parse(text).map_err(|_| Unfetched::Address)?;
        url.set_fragment(None);
        match (url.scheme(), self.policy.fetch) {
            ("https", RemoteImages::Https | RemoteImages::Http) | ("http", RemoteImages::Http) => {}
            _ => return Err(Unfetched::Scheme),
        }
        let host = url.host_str().ok_or(Unfetched::Address)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unfetched::Credentials);
        }
        // The parser leaves out the scheme's own.
        if url.port().is_some() {
            return Err(Unfetched::Port);
        }
        let hosts = &self.policy.hosts;
        let matches = |known: &String| match known.strip_prefix('*') {
            Some(domain) => host.ends_with(domain),
            None => host == known,
        };
        if !hosts.is_empty() && !hosts.iter().any(matches) {
            return Err(Unfetched::Host(hosts.join(", ")));
        }
        Ok(url)
    }

    /// The file at `url`, which [`Remote::address`] has let pass. `wait`: for one of the places in which images are fetched.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        url: Url,
        most_bytes: u64,
        wait: Duration,
    ) -> Result<Result<Vec<u8>, Unfetched>, ApiError> {
        let busy = || ApiError::Images(wait);
        let place = timeout(wait, FETCHERS.acquire());
        let place = place.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let remote = Arc::clone(self);
        let fetched = spawn_blocking(move || {
            // The thread works on when the client has gone, so the place is its own.
            let _place = place;
            remote.follow(url, most_bytes)
        });
        fetched
            .await
            .map_err(|error| ApiError::Internal(error.to_string()))
    }

    fn follow(&self, mut url: Url, most_bytes: u64) -> Result<Vec<u8>, Unfetched> {
        let deadline = Instant::now() + self.policy.timeout;
        for redirects in 0..=MOST_REDIRECTS {
            let told = |why| match redirects {
                0 => why,
                _ => Unfetched::Redirect(Box::new(why)),
            };
            match self.ask(&url, deadline, most_bytes).map_err(told)? {
                Answer::File(file) => return Ok(file),
                Answer::Moved(to) => url = to,
            }
        }
        Err(Unfetched::Redirects)
    }

    fn ask(&self, url: &Url, deadline: Instant, most_bytes: u64) -> Result<Answer, Unfetched> {
        let failed = |error: &ureq::Error| {
            tracing::info!(host = url.host_str(), %error, "an image was not fetched");
            match error {
                ureq::Error::Timeout(_) => Unfetched::Slow(self.policy.timeout),
                _ => Unfetched::Unreachable,
            }
        };
        let response = self.agent(deadline).get(url.as_str()).call();
        let mut response = response.map_err(|error| failed(&error))?;
        if response.status().is_redirection() {
            return self.moved(url, &response).map(Answer::Moved);
        }
        if response.status() != 200 {
            return Err(Unfetched::Status(response.status().as_u16()));
        }
        let body = response.body_mut();
        let large = |length: u64| length > most_bytes;
        if body.content_length().is_some_and(large) {
            return Err(Unfetched::Large(most_bytes));
        }
        let mut file = Vec::new();
        let mut reader = body.as_reader().take(most_bytes.saturating_add(1));
        reader
            .read_to_end(&mut file)
            .map_err(|error| failed(&ureq::Error::from(error)))?;
        if large(file.len() as u64) {
            return Err(Unfetched::Large(most_bytes));
        }
        Ok(Answer::File(file))
    }

    fn moved(&self, from: &Url, response: &Response<Body>) -> Result<Url, Unfetched> {
        let to = response.headers().get(header::LOCATION);
        let Some(to) = to.and_then(|to| to.to_str().ok()) else {
            return Err(Unfetched::Status(response.status().as_u16()));
        };
        let to = from.join(to).map_err(|_| Unfetched::Address);
        to.and_then(|to| self.address(to.as_str()))
            .map_err(|why| Unfetched::Redirect(Box::new(why)))
    }

    /// For one request: a connection kept open would be used again without a look at its address.
    fn agent(&self, deadline: Instant) -> Agent {
        let left = deadline.saturating_duration_since(Instant::now());
        let tls = TlsConfig::builder().root_certs(self.internet.roots.clone());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy would resolve the name again.
            .proxy(None)
            .max_idle_connections(0)
            .user_agent(concat!("llm-server/", env!("CARGO_PKG_VERSION")))
            .accept("image/*")
            .accept_encoding("identity")
            .tls_config(tls.build())
            .timeout_global(Some(left))
            .build();
        Agent::with_parts(config, DefaultConnector::default(), self.internet.clone())
    }
}
