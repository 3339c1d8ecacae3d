//! A journal for tests: starts the real binary as systemd would, and reads the entries that it sends.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    collections::BTreeMap,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
};

use super::{
    server,
    systemd::{LONG, Service},
};

/// Its socket, which the server finds where journald's is, in a mount namespace of its own.
pub(crate) struct Journal {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Journal {
    /// `None`, said on stderr, where namespaces are not allowed.
    pub(crate) fn open() -> Option<Self> {
        let allowed = Command::new("unshare").args(["-rm", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            eprintln!("not tested: this machine allows no mount namespace (unshare -rm)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Some(Self { socket, folder })
    }

    /// The server, with the socket where it looks for journald's.
    pub(crate) fn serve(&self, settings: &[&str]) -> Service {
        server::fetch_model();
        let serve = server::command();
        let mut shell = Command::new("unshare");
        let script = r#"mount -t tmpfs none /run && mkdir -p /run/systemd/journal
            mount --bind "$1" /run/systemd/journal; shift
            JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@""#;
        shell
            .args(["-rm", "sh", "-ec", script, "sh"])
            .arg(self.folder.path())
            .arg(serve.get_program())
            .args(["serve", "--set", "listen = \"127.0.0.1:0\""])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(serve.get_current_dir().unwrap())
            .stdin(Stdio::null())
            .env("LLM_SERVER_MODELS", server::models());
        Service::start(shell)
    }

    /// The next entry with this field.
    pub(crate) fn hear(&self, field: &str, value: &str) -> BTreeMap<String, String> {
        let mut datagram = vec![0; 1 << 16];
        loop {
            let size = self.socket.recv(&mut datagram).expect("another entry");
            let entry = entry(&datagram[..size]);
            if entry.get(field).is_some_and(|is| is == value) {
                return entry;
            }
        }
    }
}

/// journald's own format: `NAME=value\n`, or `NAME\n`, eight bytes of length, the value and `\n`.
fn entry(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 1..];
        let (name, value) = if let Some((name, value)) = line.split_once('=') {
            (name.to_owned(), value.to_owned())
        } else {
            let (length, rest) = bytes.split_first_chunk().unwrap();
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            let value = String::from_utf8_lossy(&rest[..length]).into_owned();
            bytes = &rest[length + 1..];
            (line, value)
        };
        fields.insert(name, value);
    }
    fields
}
