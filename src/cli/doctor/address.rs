//! Whether the configured address is free, and who has it otherwise.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
};

use rustix::fs::{Access, access};

use super::Finding;
use crate::config::Listen;

const SUBJECT: &str = "address";

pub(super) fn finding(listen: &Listen) -> Finding {
    if env::var_os("LISTEN_FDS").is_some() {
        return Finding::ok(SUBJECT, "the service manager passes the sockets");
    }
    match listen {
        Listen::Tcp(address) => tcp(*address),
        Listen::Unix(path) => unix(path),
    }
}

fn tcp(address: SocketAddr) -> Finding {
    let Err(error) = TcpListener::bind(address) else {
        return Finding::ok(SUBJECT, format!("{address} is free"));
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => taken(&address.to_string(), &holders(address.port())),
        io::ErrorKind::PermissionDenied => Finding::fail(
            SUBJECT,
            format!("{address}: ports below 1024 are not for this user"),
            "take a port from 1024 on, have systemd open it (a socket unit), or give the service \
             AmbientCapabilities=CAP_NET_BIND_SERVICE",
        ),
        io::ErrorKind::AddrNotAvailable => Finding::fail(
            SUBJECT,
            format!("{address}: no interface of this machine has that address"),
            "take one that `ip address` shows, or 127.0.0.1 for this machine alone",
        ),
        _ => Finding::fail(
            SUBJECT,
            format!("{address}: {error}"),
            "choose another address",
        ),
    }
}

fn taken(address: &str, holders: &[Holder]) -> Finding {
    if let [holder] = holders
        && ["llm-server", "systemd"].contains(&holder.name.as_str())
    {
        let Holder { name, pid } = holder;
        return Finding::ok(
            SUBJECT,
            format!("{address} is held by {name} (process {pid}): the service is set up already"),
        );
    }
    let who: Vec<_> = holders
        .iter()
        .map(|Holder { name, pid }| format!("{name} (process {pid})"))
        .collect();
    let who = match who.as_slice() {
        [] => "a process of another user (root sees which)".to_owned(),
        who => who.join(", "),
    };
    Finding::fail(
        SUBJECT,
        format!("{address} is in use by {who}"),
        "stop that process, or set `listen` to another port; port 0 takes any free one",
    )
}

fn unix(path: &Path) -> Finding {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Finding::fail(
            SUBJECT,
            format!("{shown}: a file that is no socket stands there"),
            "move it away, or let `listen` name another path",
        ),
        Ok(_) if UnixStream::connect(path).is_ok() => Finding::ok(
            SUBJECT,
            format!("{shown}: somebody answers there, so the service may be running already"),
        ),
        _ => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => Finding::ok(SUBJECT, format!("{shown} is free")),
                Err(error) => Finding::fail(
                    SUBJECT,
                    format!("no socket can be made in {}: {error}", folder.display()),
                    "make the folder for the server's user; under systemd RuntimeDirectory= does",
                ),
            }
        }
    }
}

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    name: String,
    pid: u32,
}

/// Processes, as far as they can be seen, that listen on a TCP port.
fn holders(port: u16) -> Vec<Holder> {
    let inodes: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listening(&fs::read_to_string(table).unwrap_or_default(), port))
        .collect();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let links = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        links
            .flatten()
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
    })
    .map(|pid| Holder {
        name: fs::read_to_string(format!("/proc/{pid}/comm"))
            .unwrap_or_default()
            .trim()
            .to_owned(),
        pid,
    })
    .collect()
}

/// `socket:[INODE]` of the sockets that listen on a port, from the kernel's table.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, own_port) = fields.get(1)?.rsplit_once(':')?;
        let matches = u16::from_str_radix(own_port, 16).ok()? == port && *fields.get(3)? == LISTEN;
        matches.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    });
    sockets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_listens_on_the_port_holds_it() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
             1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
             2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening(table, 8080), ["socket:[4711]"]);
        assert!(listening(table, 80).is_empty());
    }

    #[test]
    fn this_process_is_found_by_the_port_that_it_listens_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holders(listener.local_addr().unwrap().port());
        assert_eq!(
            found.iter().map(|it| it.pid).collect::<Vec<_>>(),
            [std::process::id()]
        );
    }
}
