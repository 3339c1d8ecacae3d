//! Pictures and sounds of our own making, to try a projector with.

use std::time::Duration;

use crate::engine::senses::{Medium, Picture, Sound};

/// A plain picture, in pixels of each side.
pub(crate) const PLAIN: u32 = 384;

/// A picture whose colours run.
pub(crate) fn picture(width: u32, height: u32) -> Medium {
    let shade = |at: u32, of: u32| u8::try_from(u64::from(at) * 255 / u64::from(of)).unwrap_or(255);
    let rows = (0..height).flat_map(|y| {
        (0..width).flat_map(move |x| {
            [
                shade(x, width),
                shade(y, height),
                shade(x ^ y, width.max(height)),
            ]
        })
    });
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&width.to_le_bytes());
    digest[4..8].copy_from_slice(&height.to_le_bytes());
    Medium::Picture(Picture {
        digest,
        width,
        height,
        rgb: rows.collect(),
    })
}

/// A tone that rises. `rate`: samples a second.
pub(crate) fn sound(rate: u32, length: Duration) -> Medium {
    const LOUDNESS: f32 = 0.5;
    let count = u64::from(rate) * u64::try_from(length.as_millis()).unwrap_or(u64::MAX) / 1000;
    let mut phase = 0.0_f32;
    let samples = (0..count).map(|at| {
        // From 100 Hz up by 500 Hz a second, to begin anew after a second.
        let second = (at % u64::from(rate)) as f32 / rate as f32;
        phase = (phase + (100.0 + 500.0 * second) / rate as f32).fract();
        LOUDNESS * (phase * std::f32::consts::TAU).sin()
    });
    let mut digest = [1; 32];
    digest[..8].copy_from_slice(&count.to_le_bytes());
    Medium::Sound(Sound {
        digest,
        samples: samples.collect(),
    })
}
