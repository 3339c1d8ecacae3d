//! Where the HTTP API is offered: `host:port`, or `unix:/path`.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Port 0 takes a free one.
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected host:port such as 127.0.0.1:8080 or [::1]:8080, or unix:/absolute/path; got {0:?}"
)]
pub struct BadListen(String);

impl FromStr for Listen {
    type Err = BadListen;

    fn from_str(text: &str) -> Result<Self, BadListen> {
        let bad = || BadListen(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.len() > 1 && path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(bad())
            };
        }
        // The one name that needs no resolver.
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| bad())?;
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| bad())
    }
}

impl TryFrom<String> for Listen {
    type Error = BadListen;

    fn try_from(text: String) -> Result<Self, BadListen> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in [
            "127.0.0.1:8080",
            "[::1]:0",
            "0.0.0.0:65535",
            "unix:/run/llm.sock",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!(
            "localhost:80".parse::<Listen>().unwrap().to_string(),
            "127.0.0.1:80"
        );
    }

    #[test]
    fn names_bare_ports_and_relative_sockets_are_refused() {
        for text in [
            "",
            "8080",
            ":8080",
            "example.org:80",
            "127.0.0.1",
            "::1:80",
            "unix:run",
            "unix:",
            "unix:/",
        ] {
            assert_eq!(text.parse::<Listen>(), Err(BadListen(text.to_owned())));
        }
    }
}
