//! The order of life: check → bind → verify → load → warm up → ready → serve → drain → join.

pub(crate) mod adapters;
pub(crate) mod files;
mod http;
mod identity;
mod last_words;
mod listen;
pub(crate) mod load;
mod loading;
pub(crate) mod locate;
pub(crate) mod patterns;
mod reload;
mod senses;
mod signals;
pub(crate) mod states;
pub(crate) mod trial;

use std::{
    io,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
    task,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    http::{Http, Patience},
    identity::Served,
    listen::Owner,
    loading::Loading,
    locate::{Located, Proved},
    reload::Reload,
    states::Folders,
};
pub use self::{
    listen::ListenError,
    load::LoadFailure,
    locate::{Absent, LocateError, Origin, Origins},
};
use crate::{
    api::{Early, Identity, Internet, Service, Settings, Stage, Surface},
    config::Config,
    engine::{Watch, constrain::Constraints, llama, model::Vocab},
    gpu::Gpus,
    systemd,
};

/// How long cut streams have to pass on their error event once the drain is over.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// How long the engine may take to finish its last step and free its memory.
const LAST_STEP: Duration = Duration::from_secs(30);
/// How long the GPUs' driver may go on waking up after the model is loaded.
const WAKE_UP: Duration = Duration::from_secs(1);
/// How long those who came too late have to take their 503.
const TURN_AWAY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{field}: cannot read {}: {source}", path.display())]
    File {
        field: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{field}: {} cannot be used: {source}", path.display())]
    Place {
        field: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "cache.folder: expected a path, since there is no state directory (STATE_DIRECTORY, XDG_STATE_HOME and HOME are \
         unset)"
    )]
    NoFolder,
    #[error("{field}: {} holds no key; expected one key a line", path.display())]
    NoKeys { field: &'static str, path: PathBuf },
    /// With the name of the setting.
    #[error("{0}")]
    Defaults(String),
    #[error(transparent)]
    Locate(#[from] LocateError),
    #[error(transparent)]
    Load(#[from] LoadFailure),
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("the engine thread panicked")]
    EngineDied,
    #[error("the engine did not stop within {LAST_STEP:?}")]
    EngineStuck,
}

/// Serves until SIGTERM or SIGINT, then drains; `Ok` is a clean stop.
///
/// When this returns, a thread of the engine may still run: leave the process by `_exit`.
/// `reread` reads the configuration again, from where `config` came from; it says itself what is wrong there.
pub fn run(
    config: Config,
    origins: Origins,
    reread: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
) -> Result<(), Failure> {
    let template = files::template(&config)?;
    let settings = settings(&config)?;
    let tape = files::tape(&config)?;
    let folders = Folders::open(&config.cache, origins.model.name())?;
    let sockets = listen::open(&config.listen)?;
    let owner = listen::owner(&sockets);
    let early = match owner {
        // Who connects to a socket of the service manager counts on being kept until somebody answers.
        Owner::ServiceManager => Early::Waits,
        Owner::Us => Early::TurnedAway,
    };
    let addresses: Vec<_> = sockets.iter().map(|bound| bound.address.clone()).collect();

    let runtime = runtime()?;
    let stop = CancellationToken::new();
    let (stage, seen) = watch::channel(Stage::Loading { percent: 0 });
    let (surface, http) = {
        let _inside = runtime.enter();
        let surface = Surface::new(
            seen,
            origins.model.name(),
            settings,
            tape,
            early,
            Internet::real(),
        );
        let reload = Reload::new(config.clone(), reread, surface.clone());
        signals::watch(stop.clone(), reload)?;
        let http = Http::start(sockets, surface.router(), Patience::of(&config.limits))?;
        (surface, http)
    };
    last_words::prepare(runtime.handle().clone(), stage.clone(), http.finish())?;
    for address in &addresses {
        info!(%address, model = origins.model.name(), "listening");
    }
    let life = Life {
        addresses: addresses.join(" "),
        owner,
        config,
        origins,
        template,
        folders,
        stage,
        stop,
        http,
        surface,
    };
    let end = runtime.block_on(life.lead());
    runtime.shutdown_timeout(TURN_AWAY);
    end
}

/// What of the configuration the HTTP surface needs.
fn settings(config: &Config) -> Result<Settings, Failure> {
    Ok(Settings {
        limits: config.limits.clone(),
        keys: files::keys(&config.auth)?,
        share: config.cache.share,
        normalize: config.cache.normalize,
        aliases: config.model.aliases.clone(),
        origins: config.cors.origins.clone(),
        images: config.images.clone(),
        defaults: config.model.defaults.clone(),
    })
}

struct Life {
    addresses: String,
    owner: Owner,
    config: Config,
    origins: Origins,
    template: Option<String>,
    folders: Folders,
    stage: watch::Sender<Stage>,
    stop: CancellationToken,
    http: Http,
    surface: Surface,
}

impl Life {
    async fn lead(self) -> Result<(), Failure> {
        let began = Instant::now();
        // Beside the load: the driver may take a while to wake up.
        let gpus = task::spawn_blocking(Gpus::open);
        let loading = Loading {
            origins: self.origins.clone(),
            config: self.config.clone(),
            template: self.template.clone(),
            folders: self.folders.clone(),
            addresses: self.addresses.clone(),
            stage: self.stage.clone(),
            stop: self.stop.clone(),
        };
        let Some((proved, loaded)) = loading.run().await? else {
            info!("stopped while loading");
            // Who waits for the model hears that it will not come.
            self.stage.send_replace(Stage::Draining);
            let _ = timeout(TURN_AWAY, self.http.finish()).await;
            return Ok(());
        };
        let identity = self.identity(&proved)?;
        let ended = join_elsewhere(loaded.thread)?;
        let engine = loaded.work.watch();
        let name = identity.model.clone();
        // A driver that panics or hangs costs the readings, not the server.
        let gpus = timeout(WAKE_UP, gpus)
            .await
            .map_or_else(|_| Gpus::default(), Result::unwrap_or_default);
        tokio::spawn(log_gpus(gpus.clone()));
        let about = loaded.weights.about();
        let vocab: Arc<dyn Vocab> = loaded.weights;
        let constraints = Constraints::new(Arc::clone(&vocab));
        // Beside the first requests, which need not wait for it.
        constraints.prepare();
        let service = Arc::new(Service {
            work: loaded.work,
            vocab,
            constraints,
            identity,
            about,
            plan: loaded.placement,
            gpus,
        });
        let defaults = &self.config.model.defaults;
        self.surface
            .check_defaults(&service, defaults)
            .map_err(Failure::Defaults)?;
        info!(
            model = name,
            fingerprint = service.identity.fingerprint,
            seconds = began.elapsed().as_secs_f64(),
            "ready"
        );
        self.stage.send_replace(Stage::Ready(service));
        systemd::ready(&format!("Serving {name} on {}", self.addresses));
        self.serve(name, engine, ended).await
    }

    async fn serve(
        self,
        name: String,
        engine: Watch,
        mut ended: oneshot::Receiver<bool>,
    ) -> Result<(), Failure> {
        let tending = tokio::spawn(systemd::tend(name, engine.clone(), self.stop.clone()));
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = &mut ended => {
                last_words::died("its thread ended; the log says why");
                std::future::pending::<()>().await;
            }
        }
        self.drain(&engine).await;
        tending.abort();
        let _ = tending.await;
        engine.halt();
        match timeout(LAST_STEP, ended).await {
            Ok(Ok(true)) => {
                info!("stopped");
                Ok(())
            }
            Ok(_) => Err(Failure::EngineDied),
            Err(_) => Err(Failure::EngineStuck),
        }
    }

    /// Nothing new is begun; what runs may end by itself until `limits.drain`, then it is told to.
    async fn drain(&self, engine: &Watch) {
        let limit = self.config.limits.drain;
        let busy = engine.busy();
        info!(
            running = busy.running,
            queued = busy.queued,
            limit_s = limit.as_secs_f64(),
            "draining"
        );
        // In this order: whoever hears of the stop finds the door closed.
        match self.owner {
            Owner::Us => drop(self.stage.send_replace(Stage::Draining)),
            // Nobody new gets in, and whoever is in already is answered.
            Owner::ServiceManager => self.http.leave(),
        }
        systemd::stopping("Draining", limit + LAST_EVENTS + LAST_STEP);
        let mut finish = pin!(self.http.finish());
        if timeout(limit, &mut finish).await.is_err() {
            let busy = engine.busy();
            warn!(
                running = busy.running,
                queued = busy.queued,
                "drain limit reached, ending what runs"
            );
            engine.halt();
            if timeout(LAST_EVENTS, &mut finish).await.is_err() {
                warn!("clients did not take their last event");
            }
        }
        let _ = timeout(TURN_AWAY, self.http.turned_away()).await;
    }

    fn identity(&self, proved: &Proved) -> Result<Identity, Failure> {
        let build = llama::build();
        let weights = proved.model.sha256.to_string();
        let sha256 = |located: &Located| located.sha256.to_string();
        let projector = proved.projector.as_ref().map(sha256);
        let draft = proved.draft.as_ref().map(sha256);
        let served = Served {
            build: &build,
            name: self.origins.model.name(),
            engine: &self.config.engine,
            weights_sha256: &weights,
            projector_sha256: projector.as_deref(),
            adapters: &adapters::scales(&self.config.model.adapters, &proved.adapters_sha256),
            draft_sha256: draft.as_deref(),
            template: self.template.as_deref(),
        };
        Ok(Identity {
            loras: adapters::loras(&self.config.model.adapters, proved)?,
            model: self.origins.model.name().to_owned(),
            aliases: self.surface.aliases(),
            created: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            fingerprint: served.fingerprint(),
            version: served.version(),
        })
    }
}

/// What limits a GPU is easily overlooked: a narrow slot, a low power limit, heat.
async fn log_gpus(gpus: Gpus) {
    for gpu in gpus.now().await.into_iter().flatten() {
        info!(
            name = gpu.name,
            free_mib = gpu.memory.map(|memory| memory.free_bytes >> 20),
            temperature_celsius = gpu.temperature_celsius,
            power_watts = gpu.power_watts,
            power_limit_watts = gpu.power_limit_watts,
            pcie_generation_max = gpu.pcie.generation_max,
            pcie_width = gpu.pcie.width,
            throttled_by = gpu.throttled_by.map(|reasons| reasons.join(", ")),
            error = gpu.error,
            "GPU"
        );
    }
}

/// The end of the engine thread as a message: whether it ended without a panic.
fn join_elsewhere(engine: thread::JoinHandle<()>) -> io::Result<oneshot::Receiver<bool>> {
    let (tell, ended) = oneshot::channel();
    thread::Builder::new()
        .name("engine-join".into())
        .spawn(move || {
            let _ = tell.send(engine.join().is_ok());
        })?;
    Ok(ended)
}

/// Few threads: every core they take is one that the engine's team of threads waits for at each step
/// (measured: one busy neighbour cost two decode threads four fifths of their speed). They only move
/// bytes and word events, of which there is one a token; a machine with cores to spare gets a second
/// thread, so that a slow request does not delay the others' streams. Prompts are prepared on
/// blocking threads.
fn runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(if cores > 4 { 2 } else { 1 })
        .max_blocking_threads(8)
        .thread_name("http")
        .enable_all()
        .build()
}

/// What `GET /version` would answer under this configuration. After [`llama::init`].
pub fn version(config: &Config, origins: &Origins) -> Result<Value, Failure> {
    let template = files::template(config)?;
    let sha256 = |origin: &Origin| Ok::<_, Failure>(origin.sha256()?.to_string());
    let projector = origins.projector.as_ref().map(sha256).transpose()?;
    let draft = origins.draft.as_ref().map(sha256).transpose()?;
    let adapters = origins.adapters.iter().map(Origin::sha256);
    let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
    Ok(Served {
        build: &llama::build(),
        name: origins.model.name(),
        engine: &config.engine,
        weights_sha256: &origins.model.sha256()?.to_string(),
        projector_sha256: projector.as_deref(),
        adapters: &adapters::scales(&config.model.adapters, &adapters),
        draft_sha256: draft.as_deref(),
        template: template.as_deref(),
    }
    .version())
}
