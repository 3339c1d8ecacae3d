//! Xid errors, as the driver reports them to whoever listens: on a thread of its own, which ends with its handle.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nvml_wrapper::{
    EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};
use serde::Serialize;

/// NVML's wait cannot be woken from outside, so this is how long the thread may outlive its handle.
const WAIT_MS: u32 = 1000;
/// NVML's own number for an error that it cannot name.
const UNKNOWN: u64 = 999;

/// Errors that the driver reported for one GPU. NVIDIA lists what each code means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Xid {
    /// The latest code.
    pub last: Option<u64>,
    pub count: u64,
}

/// The errors so far. Dropping it ends the thread, within a second.
pub(super) struct Events {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    /// By UUID; a GPU that is not followed is not here.
    seen: Mutex<HashMap<String, Xid>>,
}

impl Events {
    /// Returns at once; where events are not supported none will be seen.
    pub(super) fn follow(nvml: Arc<Nvml>) -> Self {
        let shared = Arc::new(Shared::default());
        let inside = Arc::clone(&shared);
        let listen = move || {
            if let Err(error) = inside.listen(&nvml) {
                tracing::warn!(%error, "errors of GPUs are not followed any more");
            }
        };
        if let Err(error) = thread::Builder::new()
            .name("gpu-events".into())
            .spawn(listen)
        {
            tracing::warn!(%error, "errors of GPUs are not followed");
        }
        Self { shared }
    }

    /// `None`: this GPU's errors are not followed.
    pub(super) fn of(&self, uuid: &str) -> Option<Xid> {
        self.shared.seen().get(uuid).copied()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Until the handle is dropped, or the driver fails.
    fn listen(&self, nvml: &Nvml) -> Result<(), NvmlError> {
        let Some(set) = self.register(nvml)? else {
            return Ok(());
        };
        while !self.ended.load(Ordering::Relaxed) {
            match set.wait(WAIT_MS) {
                Ok(event) => self.note(&event),
                Err(NvmlError::Timeout) => {}
                // Tried again it would fail again, at once and for ever.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All GPUs that tell of Xid errors; `None`: none does.
    fn register<'nvml>(&self, nvml: &'nvml Nvml) -> Result<Option<EventSet<'nvml>>, NvmlError> {
        let wanted = EventTypes::CRITICAL_XID_ERROR;
        let mut set = None;
        for index in 0..nvml.device_count()? {
            let Ok(device) = nvml.device_by_index(index) else {
                continue;
            };
            // Asked first, because registering in vain gives up the whole set.
            let supported = device.supported_event_types();
            let (Ok(uuid), true) = (device.uuid(), supported.is_ok_and(|it| it.contains(wanted)))
            else {
                tracing::debug!(index, "this GPU does not tell of its errors");
                continue;
            };
            let so_far = match set {
                Some(set) => set,
                None => nvml.create_event_set()?,
            };
            let more = device.register_events(wanted, so_far);
            set = Some(more.map_err(|failed| failed.error)?);
            self.seen().insert(uuid, Xid::default());
        }
        Ok(set)
    }

    fn note(&self, event: &EventData<'_>) {
        let code = match event.event_data {
            Some(XidError::Value(code)) => code,
            Some(XidError::Unknown) => UNKNOWN,
            None => return,
        };
        // A GPU that fell off the bus may not tell its name any more.
        let gpu = event.device.uuid().ok().or_else(|| self.only());
        tracing::warn!(gpu, xid = code, "the driver reports an error of a GPU");
        if let Some(uuid) = gpu {
            self.count(uuid, code);
        }
    }

    /// The one GPU that is followed, if it is one.
    fn only(&self) -> Option<String> {
        let seen = self.seen();
        let mut uuids = seen.keys();
        uuids.next().filter(|_| uuids.next().is_none()).cloned()
    }

    fn count(&self, uuid: String, code: u64) {
        let mut seen = self.seen();
        let xid = seen.entry(uuid).or_default();
        xid.last = Some(code);
        xid.count += 1;
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, Xid>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_for_each_gpu_and_the_latest_is_kept() {
        let events = Events {
            shared: Arc::default(),
        };
        events.shared.count("GPU-a".to_owned(), 13);
        events.shared.count("GPU-a".to_owned(), 79);
        events.shared.count("GPU-b".to_owned(), 48);
        let (last, count) = (Some(79), 2);
        assert_eq!(events.of("GPU-a"), Some(Xid { last, count }));
        assert_eq!(events.of("GPU-b").unwrap().count, 1);
        assert_eq!(events.of("GPU-c"), None);
    }
}
