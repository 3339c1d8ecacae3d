//! The figures that are measured: their names, units, and which direction is better.

use serde::{Deserialize, Serialize};

/// One figure of one run; the names in reports carry the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Metric {
    /// From sending to the first token, median of the requests.
    #[serde(rename = "ttft_ms")]
    FirstToken,
    /// The same for the last turn of each conversation only: it has the longest past.
    #[serde(rename = "ttft_last_turn_ms")]
    LastTurn,
    /// Prompt tokens a second until the first token, median of the streams; not for conversations.
    #[serde(rename = "prompt_tps")]
    Prompt,
    /// Tokens a second after the first, median of the streams.
    #[serde(rename = "decode_tps")]
    Decode,
    /// Generated tokens of all streams over the wall time of the run.
    #[serde(rename = "total_tps")]
    Total,
    #[serde(rename = "gap_p50_ms")]
    GapMedian,
    #[serde(rename = "gap_p99_ms")]
    Gap99,
    #[serde(rename = "gap_max_ms")]
    GapMax,
    /// Resident memory of the server's process after the run (`VmRSS`), file pages included.
    #[serde(rename = "rss_mib")]
    Resident,
    /// Memory of the server's process on all GPUs after the run.
    #[serde(rename = "vram_mib")]
    Vram,
    /// Memory in use on all GPUs by anybody, where the driver does not tell by process.
    #[serde(rename = "gpu_used_mib")]
    GpuUsed,
}

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

impl Metric {
    /// Shown in every table, as `–` when it could not be measured.
    pub(super) const USUAL: [Self; 9] = [
        Self::FirstToken,
        Self::Prompt,
        Self::Decode,
        Self::Total,
        Self::GapMedian,
        Self::Gap99,
        Self::GapMax,
        Self::Resident,
        Self::Vram,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::FirstToken => "first token, ms",
            Self::LastTurn => "… of the last turn, ms",
            Self::Prompt => "prompt, tok/s",
            Self::Decode => "decode per stream, tok/s",
            Self::Total => "generated in total, tok/s",
            Self::GapMedian => "gap p50, ms",
            Self::Gap99 => "gap p99, ms",
            Self::GapMax => "gap max, ms",
            Self::Resident => "resident memory, MiB",
            Self::Vram => "VRAM, MiB",
            Self::GpuUsed => "in use on GPUs, MiB",
        }
    }

    pub(super) fn better(self) -> Better {
        match self {
            Self::Prompt | Self::Decode | Self::Total => Better::More,
            Self::FirstToken
            | Self::LastTurn
            | Self::GapMedian
            | Self::Gap99
            | Self::GapMax
            | Self::Resident
            | Self::Vram
            | Self::GpuUsed => Better::Less,
        }
    }

    /// Smaller differences than this, in the figure's own unit, are never a regression: a gap of
    /// 3 µs is three times one of 1 µs (two events in one packet) and means nothing.
    pub(super) fn negligible(self) -> f64 {
        match self {
            Self::FirstToken | Self::LastTurn | Self::GapMedian | Self::Gap99 | Self::GapMax => 0.1,
            Self::Prompt | Self::Decode | Self::Total => 0.0,
            Self::Resident | Self::Vram | Self::GpuUsed => 1.0,
        }
    }

    /// Whether its absence in a report only says that somebody did not look.
    pub(super) fn is_memory(self) -> bool {
        matches!(self, Self::Resident | Self::Vram | Self::GpuUsed)
    }
}
