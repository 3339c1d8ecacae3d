//! What is taken for an image, and in which words everything else is refused.

use ::base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{source::file, *};

fn config() -> crate::config::Config {
    use crate::config::{self, KnownModel, Source};
    let known = KnownModel {
        name: "tiny".into(),
        trained_context: None,
    };
    let text = "{ model.name = \"tiny\", limits.image_bytes = 2000 }";
    let source = Source::new("test.ncl", text);
    config::load(&source, &[], &[known]).unwrap()
}

fn limits() -> Limits {
    config().limits
}

fn why_not(url: &str) -> String {
    let remote = Remote::new(Arc::new(config().images), Internet::real());
    source::Source::read(url, &limits(), &remote).err().unwrap()
}

#[test]
fn data_urls_are_read_as_clients_write_them() {
    let read = |url: &str| file(url, &limits()).unwrap();
    assert_eq!(read("data:image/png;base64,aGVsbG8="), b"hello");
    assert_eq!(read("data:image/png;base64,aGVsbG8"), b"hello");
    assert_eq!(
        read("DATA:image/PNG;charset=x;BASE64,aGVs\r\nbG8="),
        b"hello"
    );
    assert_eq!(read("data:;base64,aGVsbG8="), b"hello");
}

#[test]
fn what_is_no_data_url_of_an_image_is_refused_with_what_would_be() {
    insta::assert_snapshot!(why_not("https://example.org/cat.png"), @"this server fetches no images; expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    insta::assert_snapshot!(why_not("file:///etc/passwd"), @"expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    insta::assert_snapshot!(why_not("ü"), @"expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    insta::assert_snapshot!(why_not("data:image/png;base64"), @"there is no comma in it; expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    insta::assert_snapshot!(why_not("data:text/plain;base64,aGVsbG8="), @r#""text/plain" is no image; expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)"#);
    insta::assert_snapshot!(why_not("data:image/svg+xml,<svg/>"), @"it is not base64; expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    insta::assert_snapshot!(why_not("data:image/png;base64,a*b"), @"the base64 is damaged: Invalid symbol 42, offset 1.");
}

#[test]
fn a_file_above_the_limit_is_refused_at_the_byte() {
    let url = |bytes: usize| format!("data:image/png;base64,{}", STANDARD.encode(vec![0; bytes]));
    assert_eq!(file(&url(2000), &limits()).map(|file| file.len()), Ok(2000));
    assert_eq!(why_not(&url(2001)), "the image is larger than 2000 bytes");
    assert_eq!(why_not(&url(20_000)), "the image is larger than 2000 bytes");
}

#[test]
fn the_digest_tells_files_and_details_apart() {
    let [full, low] = [Detail::Full, Detail::Low].map(Kind::Image);
    assert_eq!(digest(b"a", full), digest(b"a", full));
    assert_ne!(digest(b"a", full), digest(b"b", full));
    assert_ne!(digest(b"a", full), digest(b"a", low));
    assert_ne!(digest(b"a", full), digest(b"a", Kind::Sound));
}
