//! Finds the process behind a URL of this machine, through the kernel's tables of sockets.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
};

use ureq::http::Uri;

/// The process that listens where `url` leads; `None`: elsewhere, or not ours to look at.
pub(super) fn listening_at(url: &str) -> Option<u32> {
    let address = local(url)?;
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, address))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A service manager holds the socket too, and may be its only holder until the first request; the
    // process that has a model in its memory is the larger one.
    pids.filter(|&pid| holds(pid, &sockets))
        .max_by_key(|&pid| resident_kib(pid))
}

/// Where `url` leads, if that is on this machine.
pub(super) fn local(url: &str) -> Option<SocketAddr> {
    let uri: Uri = url.parse().ok()?;
    let port = uri.port_u16().unwrap_or(80);
    let host = uri.host()?.trim_matches(['[', ']']);
    let mut addresses = (host, port).to_socket_addrs().ok()?;
    // Only an address of this machine can be bound.
    addresses.find(|address| UdpSocket::bind((address.ip(), 0)).is_ok())
}

/// Resident memory now (`VmRSS`).
pub(super) fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    open.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| {
            sockets
                .iter()
                .any(|socket| link.as_os_str() == socket.as_str())
        })
}

/// The listening sockets of a table such as `/proc/net/tcp` that answer at `address`.
fn inodes(table: &str, address: SocketAddr) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let (ip, port) = (ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
        let answers = port == address.port() && (ip.is_unspecified() || ip == address.ip());
        let inode = fields.get(9)?.parse().ok()?;
        (answers && fields.get(3) == Some(&LISTENING)).then_some(inode)
    };
    table.lines().filter_map(row).collect()
}

/// The kernel prints each 32-bit word of an address in the machine's own byte order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_by_its_url_and_a_closed_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        assert_eq!(listening_at(&url), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_at(&url), None);
    }

    #[test]
    fn what_is_elsewhere_has_no_process_here() {
        // A documentation address: nobody's own.
        assert_eq!(local("http://192.0.2.1:8080"), None);
        assert_eq!(local("not a url"), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_listening_sockets_of_the_port_and_the_address_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 11 1\n\
            1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12 1\n\
            2: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 13 1\n\
            3: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 14 1\n\
            4: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 15 1\n";
        let address = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(inodes(table, address), [11, 12]);
        let six = "0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A a b c 0 0 16 1";
        assert_eq!(inodes(six, "[::1]:8080".parse().unwrap()), [16]);
    }
}
