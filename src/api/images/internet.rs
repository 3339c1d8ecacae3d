//! The internet as far as clients may have it asked: names whose every address is public, and connections to just those.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ureq::{
    Error,
    config::Config,
    http::Uri,
    tls::RootCerts,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// How names become addresses, where those lie, and who may vouch for a server.
#[derive(Clone)]
pub struct Internet {
    names: Arc<dyn Resolver>,
    route: Route,
    pub(super) roots: RootCerts,
}

/// Where a connection to an address is made.
type Route = Arc<dyn Fn(SocketAddr) -> SocketAddr + Send + Sync>;

impl Internet {
    /// The one that this machine is connected to.
    pub fn real() -> Self {
        Self::new(DefaultResolver::default(), |address| address)
    }

    /// Another one. `route`: where connections to its addresses are made, once these have passed as public.
    pub fn new(
        names: impl Resolver,
        route: impl Fn(SocketAddr) -> SocketAddr + Send + Sync + 'static,
    ) -> Self {
        Self {
            names: Arc::new(names),
            route: Arc::new(route),
            // Whoever has a public address can have a certificate that all trust.
            roots: RootCerts::WebPki,
        }
    }

    /// With other authorities than those that all trust.
    #[must_use]
    pub fn trusting(self, roots: RootCerts) -> Self {
        Self { roots, ..self }
    }
}

impl fmt::Debug for Internet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Internet").finish_non_exhaustive()
    }
}

impl Resolver for Internet {
    /// What is connected to is what was looked at here: the name is not resolved again.
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.names.resolve(uri, config, timeout)?;
        // One bad address spoils the name: no honest one leads to both sides.
        if !found.iter().all(|address| is_public(address.ip())) {
            return Err(Error::HostNotFound);
        }
        let mut routed = self.empty();
        for &address in &found {
            routed.push((self.route)(address));
        }
        Ok(routed)
    }
}

/// Whether packets to it leave for the public internet, by the registries of special addresses (RFC 6890 and later).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const SPECIAL: [([u8; 4], u32); 14] = [
        ([0, 0, 0, 0], 8),       // this network
        ([10, 0, 0, 0], 8),      // private
        ([100, 64, 0, 0], 10),   // behind a carrier's NAT
        ([127, 0, 0, 0], 8),     // loopback
        ([169, 254, 0, 0], 16),  // link-local; clouds tell secrets here
        ([172, 16, 0, 0], 12),   // private
        ([192, 0, 0, 0], 24),    // protocols
        ([192, 0, 2, 0], 24),    // documentation
        ([192, 88, 99, 0], 24),  // relays of 6to4
        ([192, 168, 0, 0], 16),  // private
        ([198, 18, 0, 0], 15),   // benchmarks
        ([198, 51, 100, 0], 24), // documentation
        ([203, 0, 113, 0], 24),  // documentation
        ([224, 0, 0, 0], 3),     // multicast, reserved, broadcast
    ];
    let within = |&(net, bits): &([u8; 4], u32)| {
        (address.to_bits() ^ Ipv4Addr::from(net).to_bits()) >> (32 - bits) == 0
    };
    !SPECIAL.iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // All that is handed out lies in 2000::/3. That leaves out ::1, ::, fc00::/7, fe80::/10, ff00::/8, and the forms that
    // hide an IPv4 address: ::ffff:0:0/96 and 64:ff9b::/96.
    // Within it: protocols (among them Teredo, which hides one too), documentation; 6to4, which hides one; documentation.
    match address.segments() {
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:93.184.216.34",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "4000::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in refused {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
