//! The load while the server already answers: on a thread of its own, telling clients and systemd how far it is.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Failure, last_words,
    load::{self, LoadFailure, Loaded, Step},
    locate::{Origins, Proved},
    states::{Folders, States},
    trial,
};
use crate::{
    api::Stage,
    config::Config,
    engine::{
        fit::{self, Files, FitError, Plan},
        llama::{self, LoadError},
    },
    report, systemd,
};

/// systemd waits this long for the next word, beside what reading the weights may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// The slowest disk or link that a start is waited for.
const SLOWEST_BYTES_PER_S: u64 = 10_000_000;
/// News to systemd comes no more often than this.
const CALM: Duration = Duration::from_millis(100);
/// How long the load may take to notice that it should stop.
const LET_GO: Duration = Duration::from_secs(2);

pub(super) struct Loading {
    pub(super) origins: Origins,
    pub(super) config: Config,
    pub(super) template: Option<String>,
    pub(super) folders: Folders,
    /// Where the server listens, for the status line.
    pub(super) addresses: String,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) stop: CancellationToken,
}

impl Loading {
    /// Runs the load; `None`: it was told to stop.
    pub(super) async fn run(self) -> Result<Option<(Proved, Loaded)>, Failure> {
        let (tell, mut told) = oneshot::channel();
        let stop = self.stop.clone();
        thread::Builder::new().name("load".into()).spawn(move || {
            let _ = tell.send(self.work());
        })?;
        let end = tokio::select! {
            end = &mut told => end,
            () = stop.cancelled() => {
                systemd::stopping("Stopping before the model was loaded", LET_GO);
                // Hashing and warming up cannot be interrupted; the process ends under them.
                return match timeout(LET_GO, told).await {
                    Ok(Ok(Err(Failure::Load(LoadFailure::Engine(LoadError::Cancelled))) | Ok(_))) | Err(_) => Ok(None),
                    Ok(Ok(Err(other))) => Err(other),
                    Ok(Err(_)) => Err(Failure::EngineDied),
                };
            }
        };
        match end {
            Ok(loaded) => loaded.map(Some),
            // The thread is gone without a word: it panicked, and its message is in the log.
            Err(_) => Err(Failure::EngineDied),
        }
    }

    fn work(self) -> Result<(Proved, Loaded), Failure> {
        let name = self.origins.model.name().to_owned();
        let size = self.origins.model.size();
        let mut news = News {
            addresses: self.addresses.clone(),
            last: None,
        };
        let through = PATIENCE + Duration::from_secs(size / SLOWEST_BYTES_PER_S);

        llama::init(last_words::died).map_err(LoadFailure::from)?;
        news.now(&format!("Planning {name}"), PATIENCE + trial::PATIENCE);
        let planned = self.plan()?;
        news.now(&format!("Verifying {name}"), through);
        let proved = self.origins.prove_showing(|hashed| {
            let percent = 100 * hashed / size.max(1);
            news.calmly(&format!("Verifying {name}: {percent} %"), PATIENCE);
        })?;

        let plan = if let Some(plan) = planned {
            plan
        } else {
            news.now(&format!("Planning {name}"), PATIENCE + trial::PATIENCE);
            self.fit(proved.files()).map_err(LoadFailure::from)?
        };
        report::log(&plan);

        news.now(&format!("Loading {name}"), PATIENCE);
        let mut report = |step| {
            match step {
                Step::Weights(percent) => {
                    self.stage.send_replace(Stage::Loading { percent });
                    news.calmly(&format!("Loading {name}: {percent} %"), PATIENCE);
                }
                // Mapped weights come from the disk only now.
                Step::WarmUp => news.now(&format!("Warming up {name}"), through),
            }
            !self.stop.is_cancelled()
        };
        let loaded = load::load(
            proved.files(),
            plan,
            &self.config,
            &States::new(self.folders.clone(), &proved),
            self.template.as_deref(),
            &mut report,
        )?;
        Ok((proved, loaded))
    }
}

impl Loading {
    fn fit(&self, files: Files<'_>) -> Result<Plan, FitError> {
        trial::run(files, &self.config.engine)?;
        fit::fit_all(self.config.model.kind, files, &self.config.engine)
    }

    /// The placement, before the file is read through: what cannot work shall not take a minute to be refused.
    /// `None`: the file is not there yet, or is damaged, which its verification tells better.
    fn plan(&self) -> Result<Option<Plan>, Failure> {
        let Origins {
            model,
            projector,
            draft,
            adapters,
        } = &self.origins;
        let Some(model) = model.present()? else {
            return Ok(None);
        };
        let mut beside = [None, None];
        for (file, origin) in beside.iter_mut().zip([projector, draft]) {
            let Some(origin) = origin else { continue };
            *file = origin.present()?;
            if file.is_none() {
                return Ok(None);
            }
        }
        let [projector, draft] = &beside;
        let mut worn = Vec::new();
        for origin in adapters {
            match origin.present()? {
                Some(file) => worn.push(file),
                None => return Ok(None),
            }
        }
        let files = Files {
            model: &model,
            projector: projector.as_deref(),
            draft: draft.as_deref(),
            adapters: &worn,
        };
        match self.fit(files) {
            Ok(plan) => Ok(Some(plan)),
            Err(FitError::Load(error)) => {
                tracing::debug!(%error, "no plan before the verification");
                Ok(None)
            }
            Err(refused) => Err(LoadFailure::from(refused).into()),
        }
    }
}

/// What systemd is told, and when it was told last.
struct News {
    addresses: String,
    last: Option<Instant>,
}

impl News {
    fn now(&mut self, what: &str, patience: Duration) {
        tracing::debug!("{what}");
        systemd::loading(
            &format!("{what} (listening on {})", self.addresses),
            patience,
        );
        self.last = Some(Instant::now());
    }

    fn calmly(&mut self, what: &str, patience: Duration) {
        if self.last.is_none_or(|last| last.elapsed() >= CALM) {
            self.now(what, patience);
        }
    }
}
