//! Files of images to pixels: JPEG, PNG, WebP, and the first picture of a GIF, within limits that are looked at before a
//! pixel is decoded.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
    imageops::FilterType,
};
use serde_json::Value;

use crate::engine::{media::MediumDigest, senses::Picture};

/// How much of an image is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// As it is; the model's projector may make it smaller.
    Full,
    /// No more than [`LOW`] pixels a side.
    Low,
}

/// What OpenAI's API calls a low-resolution version.
const LOW: u32 = 512;
/// More would be too much for the arithmetic of the projectors.
const LONGEST_SIDE: u32 = 32_768;
/// A decoder's own tables and buffers, beside its pixels.
const SCRATCH_BYTES: u64 = 64 << 20;
/// Four channels of 16 bits.
const MOST_BYTES_A_PIXEL: u64 = 8;

impl Detail {
    pub(super) fn parse(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some("low") => Some(Self::Low),
            Some("auto" | "high" | "original") => Some(Self::Full),
            Some(_) => None,
            None => value.is_null().then_some(Self::Full),
        }
    }
}

/// Why a file is not an image, in words for the client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecoded {
    #[error("this is no image that can be read; expected JPEG, PNG, WebP or GIF")]
    Format,
    #[error(
        "an image of {width} × {height} pixels is larger than the {most} pixels that this server takes"
    )]
    Pixels { width: u32, height: u32, most: u64 },
    #[error("an image of {width} × {height} pixels has a side longer than {LONGEST_SIDE}")]
    Side { width: u32, height: u32 },
    #[error("the image is damaged: {0}")]
    Damaged(ImageError),
}

impl From<ImageError> for Undecoded {
    fn from(error: ImageError) -> Self {
        Self::Damaged(error)
    }
}

pub(super) fn picture(
    file: &[u8],
    digest: MediumDigest,
    detail: Detail,
    most: u64,
) -> Result<Picture, Undecoded> {
    let mut reader = ImageReader::new(Cursor::new(file));
    reader = reader.with_guessed_format().map_err(ImageError::IoError)?;
    let known = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Gif,
    ];
    if !reader
        .format()
        .is_some_and(|format| known.contains(&format))
    {
        return Err(Undecoded::Format);
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(most.saturating_mul(MOST_BYTES_A_PIXEL) + SCRATCH_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > most {
        return Err(Undecoded::Pixels {
            width,
            height,
            most,
        });
    }
    if width.max(height) > LONGEST_SIDE {
        return Err(Undecoded::Side { width, height });
    }
    // Telephones write pictures as the sensor lies.
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    if detail == Detail::Low && image.width().max(image.height()) > LOW {
        image = image.resize(LOW, LOW, FilterType::Triangle);
    }
    let rgb = on_white(image);
    Ok(Picture {
        digest,
        width: rgb.width(),
        height: rgb.height(),
        rgb: rgb.into_raw(),
    })
}

/// What is transparent has any colour or none: it is shown as on paper.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, alpha] = rgba.get_pixel(x, y).0;
        let alpha = u16::from(alpha);
        let over = |colour: u8| {
            let mixed = (u16::from(colour) * alpha + 255 * (255 - alpha) + 127) / 255;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        };
        image::Rgb([r, g, b].map(over))
    })
}

#[cfg(test)]
mod tests {
    use image::{Frame, Rgba, RgbaImage, codecs::gif::GifEncoder};

    use super::*;

    const MOST: u64 = 1 << 20;

    fn read(file: &[u8]) -> Result<Picture, Undecoded> {
        picture(file, [0; 32], Detail::Full, MOST)
    }

    fn written(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn plain(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_pixel(width, height, image::Rgb([200, 100, 50])).into()
    }

    #[test]
    fn every_format_gives_its_pixels() {
        for format in [
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Jpeg,
            ImageFormat::Gif,
        ] {
            let picture = read(&written(&plain(16, 8), format)).unwrap();
            assert_eq!((picture.width, picture.height), (16, 8), "{format:?}");
            let close = |(got, wanted): (&u8, u8)| got.abs_diff(wanted) < 12;
            let wanted = [200, 100, 50].into_iter().cycle();
            assert!(
                picture.rgb.iter().zip(wanted).all(close),
                "{format:?}: {:?}",
                &picture.rgb[..3]
            );
        }
    }

    #[test]
    fn of_a_gif_the_first_picture_is_seen() {
        let mut file = Vec::new();
        let mut encoder = GifEncoder::new(&mut file);
        for shade in [250, 10] {
            let frame = RgbaImage::from_pixel(4, 4, Rgba([shade, shade, shade, 255]));
            encoder.encode_frame(Frame::new(frame)).unwrap();
        }
        drop(encoder);
        assert!(read(&file).unwrap().rgb.iter().all(|&shade| shade > 240));
    }

    #[test]
    fn transparency_lies_on_white() {
        let mut image = RgbaImage::from_pixel(2, 1, Rgba([0, 0, 0, 0]));
        image.put_pixel(1, 0, Rgba([0, 0, 0, 255]));
        let picture = read(&written(&image.into(), ImageFormat::Png)).unwrap();
        assert_eq!(picture.rgb, [255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn too_many_pixels_are_refused_before_one_is_decoded() {
        // The header alone: a decoder that went on would miss the rest.
        let mut file = written(&plain(2000, 2000), ImageFormat::Png);
        file.truncate(100);
        let error = read(&file).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"an image of 2000 × 2000 pixels is larger than the 1048576 pixels that this server takes");
        let strip = written(&plain(40_000, 1), ImageFormat::Png);
        assert!(matches!(read(&strip), Err(Undecoded::Side { .. })));
    }

    #[test]
    fn what_is_no_image_or_cut_short_is_an_error() {
        assert!(matches!(read(b""), Err(Undecoded::Format)));
        assert!(matches!(read(b"hello"), Err(Undecoded::Format)));
        assert!(matches!(read(b"BM\0\0\0\0"), Err(Undecoded::Format)));
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif] {
            let file = written(&plain(64, 64), format);
            let cut = &file[..file.len() / 2];
            assert!(
                matches!(read(cut), Err(Undecoded::Damaged(_))),
                "{format:?}"
            );
        }
    }

    #[test]
    fn low_detail_is_at_most_512_pixels_a_side() {
        let file = written(&plain(1000, 500), ImageFormat::Png);
        let size = |detail| {
            let picture = picture(&file, [0; 32], detail, MOST).unwrap();
            (picture.width, picture.height)
        };
        assert_eq!(size(Detail::Full), (1000, 500));
        assert_eq!(size(Detail::Low), (512, 256));
    }
}
