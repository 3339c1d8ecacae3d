//! Machines and models in numbers: says what llama.cpp would say of a placement, and counts how often it is asked.

pub(in crate::engine::fit) mod any;

use std::{fmt, sync::OnceLock};

use super::{Gauge, Problem};
use crate::{
    config::{self, EngineConfig, KnownModel, KvType, Source, Split},
    engine::{
        fit::{
            Settings,
            layout::{self, At, Class, Part},
            memory::HostMemory,
        },
        gguf::{Header, Tensor},
        llama::{self, Buffer, Gauged, Gpu, LoadError},
        task::Task,
    },
};

pub(in crate::engine::fit) const MIB: u64 = 1 << 20;

/// A model, the machine it is to run on, and what the user wants. Sizes are bytes.
#[derive(Clone)]
pub(in crate::engine::fit) struct World {
    pub(in crate::engine::fit) config: EngineConfig,
    pub(in crate::engine::fit) header: Header,
    pub(in crate::engine::fit) parts: Vec<Part>,
    pub(in crate::engine::fit) gpus: Vec<Gpu>,
    pub(in crate::engine::fit) host: HostMemory,
    pub(in crate::engine::fit) margins: Vec<u64>,
    /// Keys and values of a token in one layer, as f16.
    pub(in crate::engine::fit) cache: u64,
    /// Only every so many layers have a cache.
    pub(in crate::engine::fit) cached_every: usize,
    /// Activations of a step of 512 tokens on a GPU that works.
    pub(in crate::engine::fit) compute: u64,
    /// How much of the largest weight in host memory the first GPU stages, in halves.
    pub(in crate::engine::fit) staged_halves: u64,
    /// What each of several GPUs takes more while nothing lies on the host, so that they can work on several steps at once.
    pub(in crate::engine::fit) pipeline: u64,
    /// What the first GPU takes more when some layer has weights in host memory, which no arithmetic foresees.
    pub(in crate::engine::fit) surprise: u64,
}

/// The gauge of a [`World`].
pub(in crate::engine::fit) struct Machine<'a> {
    world: &'a World,
    pub(in crate::engine::fit) asked: usize,
}

/// What a failing property shows: sizes in MiB instead of every tensor.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes / MIB;
        let parts = self.parts.iter();
        f.debug_struct("World")
            .field(
                "parts",
                &parts.map(|part| mib(&part.bytes)).collect::<Vec<_>>(),
            )
            .field(
                "gpus",
                &self
                    .gpus
                    .iter()
                    .map(|gpu| mib(&gpu.free))
                    .collect::<Vec<_>>(),
            )
            .field("host", &mib(&self.host.available))
            .field("margins", &self.margins.iter().map(mib).collect::<Vec<_>>())
            .field("cache", &(self.cache, self.cached_every))
            .field(
                "compute",
                &(mib(&self.compute), self.staged_halves, mib(&self.surprise)),
            )
            .field("placement", &self.config.placement)
            .finish_non_exhaustive()
    }
}

pub(in crate::engine::fit) fn config() -> EngineConfig {
    static DEFAULT: OnceLock<EngineConfig> = OnceLock::new();
    let load = || {
        let known = KnownModel {
            name: "tiny".into(),
            trained_context: None,
        };
        let text =
            "{ model.name = \"tiny\", engine = { context = 4096, parallel = 1, ubatch = 512 } }";
        let source = Source::new("test.ncl", text);
        config::load(&source, &[], &[known]).unwrap().engine
    };
    DEFAULT.get_or_init(load).clone()
}

impl World {
    /// A model of layers with `attn_q` and `groups` of the sizes given for each layer, in MiB; an output of 60 MiB and
    /// embeddings of 40. The host has room for all of it.
    pub(in crate::engine::fit) fn new(
        dense: u64,
        groups: &[&str],
        layers: &[Vec<u64>],
        gpus: &[u64],
    ) -> Self {
        let tensor = |name: String, mib: u64| Tensor {
            name,
            bytes: mib * MIB,
        };
        let mut tensors = vec![
            tensor("token_embd.weight".into(), 40),
            tensor("output.weight".into(), 60),
        ];
        for (at, sizes) in layers.iter().enumerate() {
            tensors.push(tensor(format!("blk.{at}.attn_q.weight"), dense));
            for (group, mib) in groups.iter().zip(sizes) {
                tensors.push(tensor(format!("blk.{at}.{group}.weight"), *mib));
            }
        }
        let experts = u32::from(groups.iter().any(|group| group.contains("exps"))) * 128;
        let header = Header {
            kv_heads: 0,
            vocabulary: 0,
            slides: false,
            architecture: "fake".into(),
            name: None,
            layers: u32::try_from(layers.len()).unwrap(),
            prediction_layers: 0,
            trained_context: None,
            experts,
            experts_used: experts / 16,
            key_length: 128,
            value_length: 128,
            keeps_states: false,
            pooling: None,
            tensors,
        };
        let gpu = |(at, mib): (usize, &u64)| Gpu {
            name: format!("CUDA{at}"),
            description: "a card".into(),
            id: String::new(),
            total: mib * MIB,
            free: mib * MIB,
        };
        Self {
            config: config(),
            parts: layout::parts(&header, config::Mtp::Off),
            header,
            gpus: gpus.iter().enumerate().map(gpu).collect(),
            host: HostMemory {
                total: 1 << 40,
                available: 1 << 39,
            },
            margins: vec![0; gpus.len() + 1],
            cache: 1024,
            cached_every: 1,
            compute: 20 * MIB,
            staged_halves: 2,
            pipeline: 0,
            surprise: 0,
        }
    }

    /// 20 MiB of attention and 200 of experts in each of `layers`.
    pub(in crate::engine::fit) fn moe(layers: usize, gpus: &[u64]) -> Self {
        let groups = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
        Self::new(20, &groups, &vec![vec![60, 60, 80]; layers], gpus)
    }

    /// 20 MiB of attention and 80 of feed-forward in each of `layers`.
    pub(in crate::engine::fit) fn dense(layers: usize, gpus: &[u64]) -> Self {
        Self::new(
            20,
            &["ffn_up", "ffn_down"],
            &vec![vec![40, 40]; layers],
            gpus,
        )
    }

    pub(in crate::engine::fit) fn problem(&self) -> Problem<'_> {
        Problem {
            task: Task::Generate,
            header: &self.header,
            config: &self.config,
            parts: &self.parts,
            gpus: &self.gpus,
            host: self.host,
            margins: &self.margins,
        }
    }

    pub(in crate::engine::fit) fn machine(&self) -> Machine<'_> {
        Machine {
            world: self,
            asked: 0,
        }
    }

    /// Overrides the user's way: in the configuration, and found in the parts.
    pub(in crate::engine::fit) fn pin(&mut self, tensors: &str, device: &str) {
        let wish = config::Override {
            tensors: tensors.into(),
            device: device.into(),
        };
        let found = llama::search(tensors, self.parts.iter().map(|part| part.name.as_str()));
        for (part, found) in self.parts.iter_mut().zip(found.unwrap()) {
            if found {
                part.pinned.get_or_insert(device.into());
            }
        }
        self.config.placement.tensor_overrides.push(wish);
    }

    /// Where llama.cpp would put each part: its layer's device, unless an override matches.
    pub(in crate::engine::fit) fn places(&self, settings: &Settings) -> Vec<At> {
        let devices = layer_devices(self.header.layers, settings);
        let mut overridden: Vec<Option<At>> = vec![None; self.parts.len()];
        for one in &settings.overrides {
            let names = self.parts.iter().map(|part| part.name.as_str());
            let found = llama::search(&one.tensors, names).unwrap();
            let device = settings.devices.iter().position(|name| *name == one.device);
            for (place, _) in overridden.iter_mut().zip(found).filter(|(_, found)| *found) {
                place.get_or_insert(device);
            }
        }
        let own = |part: &Part| match (part.class, part.layer) {
            (Class::Embeddings, _) => None,
            (_, Some(layer)) => devices[layer as usize],
            (_, None) => devices[self.header.layers as usize],
        };
        let parts = self.parts.iter().zip(overridden);
        parts
            .map(|(part, place)| place.unwrap_or_else(|| own(part)))
            .collect()
    }
}

impl Gauge for Machine<'_> {
    fn gauge(
        &mut self,
        config: &EngineConfig,
        context: u32,
        settings: &Settings,
    ) -> Result<Gauged, LoadError> {
        self.asked += 1;
        let world = self.world;
        let gpus = settings.devices.len();
        let places = world.places(settings);
        let devices = layer_devices(world.header.layers, settings);
        let weights = layout::weights(&world.parts, &places, gpus);
        let mut cache = vec![0; gpus + 1];
        let cells = u64::from(context.div_ceil(256) * 256) * u64::from(config.parallel);
        let half = |kind: KvType| {
            let (elements, bytes) = kind.block();
            world.cache / 2 * bytes / (2 * elements)
        };
        let blocks = &devices[..world.header.layers as usize];
        for device in blocks.iter().step_by(world.cached_every) {
            let at = device.filter(|_| settings.offload_kqv).unwrap_or(gpus);
            cache[at] += cells * (half(config.kv.k) + half(config.kv.v));
        }
        let hosted = world.parts.iter().zip(&places);
        let hosted = hosted
            .filter(|(part, place)| place.is_none() && part.class != Class::Embeddings)
            .map(|(part, _)| part.bytes)
            .max();
        let buffer = |at: usize| {
            let name = settings.devices.get(at).map_or("CPU", String::as_str);
            let pipeline = match hosted {
                None if gpus > 1 => world.pipeline,
                _ => 0,
            };
            let step = world.compute * u64::from(config.ubatch) / 512 + pipeline;
            let works = devices.contains(&Some(at)) || places.contains(&Some(at));
            let stages = at == 0 && gpus > 0 && settings.op_offload;
            let staging = match hosted {
                Some(bytes) if stages => bytes * world.staged_halves / 2 + world.surprise,
                _ => 0,
            };
            Buffer {
                device: name.into(),
                name: name.into(),
                host: at == gpus,
                weights: weights[at].total(),
                cache: cache[at],
                compute: staging
                    + match at {
                        at if at == gpus => MIB,
                        _ if works || staging > 0 => step,
                        _ => 0,
                    },
            }
        };
        Ok(Gauged {
            buffers: (0..=gpus).map(buffer).collect(),
            heads: Vec::new(),
            flash_attention: true,
            astray: None,
            kept_states: 0,
        })
    }
}

/// llama.cpp's own rule (`llama_model_base::load_tensors`), step by step: the device of each layer and of the output.
pub(in crate::engine::fit) fn layer_devices(layers: u32, settings: &Settings) -> Vec<At> {
    let devices = settings.devices.len();
    let mut splits: Vec<f32> = settings.tensor_split.clone();
    splits.resize(devices, 0.0);
    if settings.split == Split::None && devices > 0 {
        splits = vec![1.0]; // it keeps the main one alone
    }
    let mut sum = 0.0_f32;
    for split in &mut splits {
        sum += *split;
        *split = sum;
    }
    for split in &mut splits {
        *split /= sum;
    }
    let first = (layers + 1).saturating_sub(settings.gpu_layers);
    let on_gpu = match devices {
        0 => 0,
        _ => settings.gpu_layers.min(layers + 1),
    };
    (0..=layers)
        .map(|layer| {
            if layer < first || layer - first >= on_gpu {
                return None;
            }
            let place = (layer - first) as f32 / on_gpu as f32;
            Some(splits.partition_point(|split| *split <= place)) // upper_bound
        })
        .collect()
}
