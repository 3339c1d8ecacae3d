//! Devices of other machines among those of this process, and devices of this machine lent to others, by llama.cpp's RPC
//! backend.

use std::{
    convert::Infallible,
    ffi::{CString, c_char, c_int},
    net::SocketAddrV4,
    path::Path,
    ptr,
    sync::{Mutex, PoisonError},
};

use super::guard::{Fault, outcome};
use crate::engine::rpc::{Unusable, Version, greet};

unsafe extern "C" {
    fn rpc_protocol(version: *mut u8);
    fn rpc_is_here() -> bool;
    fn rpc_join(worker: *const c_char, out: *mut *mut c_char) -> c_int;
    fn rpc_lend(
        endpoint: *const c_char,
        cache: *const c_char,
        threads: usize,
        devices: *const *const c_char,
        n_devices: usize,
        out: *mut *mut c_char,
    ) -> c_int;
}

/// The version of the protocol that this engine speaks.
pub(crate) fn protocol() -> Version {
    let mut version = [0; 3];
    // SAFETY: three bytes are written.
    unsafe { rpc_protocol(version.as_mut_ptr()) };
    Version(version)
}

/// Adds the devices of `workers` to those of this process, in their order and once for each, until the process ends.
/// [`super::init`] comes first.
pub(crate) fn join(workers: &[String]) -> Result<(), Unusable> {
    static JOINED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    // SAFETY: looks for a name among the loaded backends.
    if !workers.is_empty() && !unsafe { rpc_is_here() } {
        return Err(Unusable::NoPlugin);
    }
    let mut joined = JOINED.lock().unwrap_or_else(PoisonError::into_inner);
    for worker in workers {
        if joined.contains(worker) {
            continue;
        }
        // The backend would wait for ever for a worker that does not answer.
        greet(worker, protocol())?;
        let refused = |why| Unusable::Refused {
            worker: worker.clone(),
            why,
        };
        let name = CString::new(worker.as_str()).map_err(|error| refused(error.to_string()))?;
        let mut out = ptr::null_mut();
        // SAFETY: NUL-terminated, and copied by the backend.
        outcome(unsafe { rpc_join(name.as_ptr(), &raw mut out) }, out)
            .map_err(|fault| refused(said(fault)))?;
        joined.push(worker.clone());
    }
    Ok(())
}

/// What is lent, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loan<'a> {
    pub(crate) listen: SocketAddrV4,
    /// Names of devices of this machine.
    pub(crate) devices: &'a [String],
    /// For devices that are CPUs.
    pub(crate) threads: u32,
    /// Keeps large tensors under their checksums, so that the next load need not send them.
    pub(crate) cache: Option<&'a Path>,
}

/// Lends devices to one server after the other, on the calling thread; comes back only when that ended, with the reason.
pub(crate) fn lend(loan: Loan<'_>) -> Result<Infallible, String> {
    let text = |text: &[u8]| CString::new(text).map_err(|error| error.to_string());
    let endpoint = text(loan.listen.to_string().as_bytes())?;
    let cache = loan
        .cache
        .map(|folder| text(folder.as_os_str().as_encoded_bytes()))
        .transpose()?;
    let names = loan
        .devices
        .iter()
        .map(|name| text(name.as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let devices: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let mut out = ptr::null_mut();
    // SAFETY: all texts are NUL-terminated and live through the call; null means no cache.
    let code = unsafe {
        rpc_lend(
            endpoint.as_ptr(),
            cache.as_ref().map_or(ptr::null(), |folder| folder.as_ptr()),
            loan.threads as usize,
            devices.as_ptr(),
            devices.len(),
            &raw mut out,
        )
    };
    match outcome(code, out) {
        Ok(()) => Err("it ended without a reason".into()),
        Err(fault) => Err(said(fault)),
    }
}

fn said(fault: Fault) -> String {
    match fault {
        Fault::Caught(why) => why,
        Fault::Code(code) => format!("error {code}"),
    }
}
