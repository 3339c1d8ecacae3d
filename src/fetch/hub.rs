//! HTTP to a Hugging Face hub: its addresses, its token, and what its answers mean for another attempt.

use std::{
    ffi::OsString,
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::de::DeserializeOwned;
use ureq::{
    Agent, Body, Proxy,
    config::RedirectAuthHeaders,
    http::{Response, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    Backoff, FetchError,
    backoff::{Trouble, retry_after},
    progress::Progress,
};

const HUB: &str = "https://huggingface.co";
const CONNECT: Duration = Duration::from_secs(30);

/// The hub may take this long to find an answer, and a stream may be silent this long.
const SILENCE: Duration = Duration::from_mins(1);

/// One hub and how to reach it.
pub struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// Why the environment does not name a usable hub.
#[derive(Debug, thiserror::Error)]
pub enum NoHub {
    #[error("HF_ENDPOINT is {0:?}; accepted is an address that starts with https:// or http://")]
    Endpoint(String),
    #[error("HF_TOKEN holds characters that no token has; accepted are visible ASCII characters")]
    Token,
    #[error("SSL_CERT_FILE: cannot read certificates from {path}: {reason}", path = path.display())]
    Certificates { path: PathBuf, reason: String },
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of every log.
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What differs between the real surroundings and a test's.
struct Network {
    proxy: Option<Proxy>,
    roots: RootCerts,
    silence: Duration,
}

impl Hub {
    /// `$HF_ENDPOINT` (else Hugging Face itself) with `$HF_TOKEN`, through the proxy that
    /// `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name, trusting `$SSL_CERT_FILE` if set.
    pub fn from_environment() -> Result<Self, NoHub> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |value: OsString| value.to_string_lossy().trim().to_owned();
        let network = Network {
            proxy: Proxy::try_from_env(),
            roots: match set("SSL_CERT_FILE") {
                Some(path) => read_roots(Path::new(&path))?,
                None => RootCerts::WebPki,
            },
            silence: SILENCE,
        };
        let endpoint = set("HF_ENDPOINT").map_or_else(|| HUB.to_owned(), text);
        Self::new(endpoint, set("HF_TOKEN").map(text), network)
    }

    /// The hub at `endpoint`, without a token, directly or through one proxy. `silence`: how long it
    /// may say nothing before the connection counts as lost.
    pub fn at(endpoint: &str, proxy: Option<Proxy>, silence: Duration) -> Result<Self, NoHub> {
        let network = Network {
            proxy,
            roots: RootCerts::WebPki,
            silence,
        };
        Self::new(endpoint.to_owned(), None, network)
    }

    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self
        }
    }

    fn new(endpoint: String, token: Option<String>, network: Network) -> Result<Self, NoHub> {
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(NoHub::Endpoint(endpoint));
        }
        let visible = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        if !token.iter().all(visible) {
            return Err(NoHub::Token);
        }
        let tls = TlsConfig::builder().root_certs(network.roots).build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("llm-server/", env!("CARGO_PKG_VERSION")))
            .proxy(network.proxy)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(network.silence))
            .timeout_per_read(Some(network.silence))
            // A renamed repository redirects on the hub itself; files redirect to another host,
            // which must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The address of one file of one commit.
    pub(super) fn file_url(&self, repo: &str, revision: &str, file: &str) -> String {
        let file = encoded(file);
        format!("{}/{repo}/resolve/{revision}/{file}", self.endpoint)
    }

    /// The address of an API call; `path` is relative to `/api/`.
    pub(super) fn api_url(&self, path: &str) -> String {
        format!("{}/api/{path}", self.endpoint)
    }

    /// Asks for `url`, from byte `from` on, if the file still has the given `ETag`.
    /// An answer that is an error has become one here.
    pub(super) fn get(
        &self,
        url: &str,
        from: u64,
        etag: Option<&str>,
    ) -> Result<Response<Body>, Trouble> {
        // Compressed bytes could be neither counted nor resumed.
        let mut request = self
            .agent
            .get(url)
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.is_own(url)) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(etag) = etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        let response = request.call().map_err(|error| trouble(url, error))?;
        refuse(url, response)
    }

    /// Asks for JSON; also gives the address of the next page, if there is one.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        url: &str,
        backoff: &Backoff,
    ) -> Result<(T, Option<String>), FetchError> {
        let quiet = Progress::new(super::Show::Nothing, url, 0);
        backoff.run(url, &quiet, || {
            let mut response = self.get(url, 0, None)?;
            let next = response
                .headers()
                .get_all(header::LINK)
                .iter()
                .find_map(|link| next_page(link.to_str().ok()?));
            match response.body_mut().read_json() {
                Ok(value) => Ok((value, next)),
                Err(ureq::Error::Json(error)) if !error.is_io() => {
                    Err(Trouble::Final(FetchError::Request {
                        url: url.to_owned(),
                        reason: format!("its answer is not what a hub answers ({error})"),
                    }))
                }
                Err(error) => Err(trouble(url, error)),
            }
        })
    }

    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.endpoint)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Errors of the connection pass; those of the address or the settings do not.
fn trouble(url: &str, error: ureq::Error) -> Trouble {
    match error {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_)
        | ureq::Error::BodyStalled
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Json(_) => Trouble::Passing {
            why: error.to_string(),
            wait: None,
        },
        other => Trouble::Final(FetchError::Request {
            url: url.to_owned(),
            reason: other.to_string(),
        }),
    }
}

fn refuse(url: &str, response: Response<Body>) -> Result<Response<Body>, Trouble> {
    let status = response.status().as_u16();
    let advice = match status {
        // 416: the caller's beginning is longer than the file; it starts again.
        200 | 206 | 416 => return Ok(response),
        408 | 429 | 500..=599 => {
            let wish = response.headers().get(header::RETRY_AFTER);
            let wait = wish.and_then(|wish| retry_after(wish.to_str().ok()?, SystemTime::now()));
            let why = format!("the server answers {}", response.status());
            return Err(Trouble::Passing { why, wait });
        }
        401 => {
            "it is gated, private or absent; put a token of an account that may read it in HF_TOKEN"
        }
        403 => {
            "the token in HF_TOKEN may not read it; accept the licence on the model's page first"
        }
        404 => "no such repository, revision or file; it may have been removed or renamed",
        _ => "this is not the answer of a model hub; check HF_ENDPOINT and the proxy",
    };
    Err(Trouble::Final(FetchError::Status {
        url: url.to_owned(),
        status,
        advice,
    }))
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let next = link
        .split(',')
        .find(|part| part.contains("rel=\"next\""))?
        .trim();
    let (url, _) = next.strip_prefix('<')?.split_once('>')?;
    Some(url.to_owned())
}

/// Percent-encodes a path, keeping its slashes.
pub(super) fn encoded(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn read_roots(path: &Path) -> Result<RootCerts, NoHub> {
    let bad = |reason: String| NoHub::Certificates {
        path: path.to_owned(),
        reason,
    };
    let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(root) = item.map_err(|error| bad(error.to_string()))? {
            roots.push(root);
        }
    }
    if roots.is_empty() {
        return Err(bad("there are none in it".to_owned()));
    }
    Ok(RootCerts::from(roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_link_that_says_so() {
        let link = "<http://hub/a?cursor=x>; rel=\"prev\", <http://hub/a?cursor=y>; rel=\"next\"";
        assert_eq!(next_page(link).as_deref(), Some("http://hub/a?cursor=y"));
        assert_eq!(next_page("<http://hub/a>; rel=\"prev\""), None);
    }

    #[test]
    fn a_path_is_encoded_but_keeps_its_folders() {
        assert_eq!(encoded("Q4 K/a+b#1.gguf"), "Q4%20K/a%2Bb%231.gguf");
    }
}
