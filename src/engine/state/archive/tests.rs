//! What is filed, in which order it goes, and what is found of it again.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::engine::prefix::Checkpoint;

const ANYWHERE: Cuts = Cuts {
    anywhere: true,
    grid: 1,
};

fn identity() -> Identity {
    Identity::new([("model", "m".into())])
}

fn saved(tenant: u64, tokens: &[Token]) -> Saved {
    let checkpoint = Checkpoint {
        at: 1,
        state: Arc::new(vec![1; 10]),
    };
    Saved {
        prefix: Prefix {
            tokens: tokens.to_vec(),
            tenant: Some(tenant),
            solid: tokens.len(),
            checkpoints: vec![checkpoint],
        },
        state: Arc::new(vec![9; 1000]),
    }
}

struct Scene {
    folder: TempDir,
    bytes: u64,
    within: Duration,
}

impl Scene {
    fn new(states: u64) -> Self {
        let one = file::length(&identity(), &saved(1, &[1, 2]));
        Self {
            folder: tempfile::tempdir().unwrap(),
            bytes: one * states,
            within: Duration::from_mins(1),
        }
    }

    fn open_as(&self, identity: Identity) -> (Archive, mpsc::Receiver<Fetched>) {
        let shelf = Shelf {
            folder: Folder::open(self.folder.path().join("kept")).unwrap(),
            bytes: self.bytes,
            within: self.within,
        };
        let (deliver, delivered) = mpsc::channel();
        let archive = Archive::open(shelf, identity, move |fetched| {
            let _ = deliver.send(fetched);
        });
        (archive.unwrap(), delivered)
    }

    fn open(&self) -> (Archive, mpsc::Receiver<Fetched>) {
        self.open_as(identity())
    }

    /// Files the states, of which the first was used last.
    fn file(&self, states: &[Saved]) {
        let mut filing = self.open().0.file();
        for saved in states {
            if filing.wants(&saved.prefix) {
                filing.put(saved);
            }
        }
        filing.finish();
    }

    fn found(&self, tenant: u64, prompt: &[Token]) -> usize {
        let found = self.open().0.find(Some(tenant), prompt, ANYWHERE);
        found.map_or(0, |(_, _, reach)| reach)
    }

    fn files(&self) -> Vec<fs::DirEntry> {
        let entries = fs::read_dir(self.folder.path().join("kept")).unwrap();
        entries
            .map(Result::unwrap)
            .filter(|entry| entry.file_name() != "lock")
            .collect()
    }
}

#[test]
fn what_was_filed_is_found_by_its_owner_and_comes_back_whole() {
    let scene = Scene::new(4);
    scene.file(&[saved(1, &[1, 2]), saved(2, &[1, 2, 3, 4])]);
    let (mut archive, delivered) = scene.open();
    assert!(archive.find(Some(3), &[1, 2, 3], ANYWHERE).is_none());
    let (name, bytes, reach) = archive.find(Some(1), &[1, 2, 3, 4, 5], ANYWHERE).unwrap();
    assert_eq!(reach, 2);
    archive.order(Arc::clone(&name), bytes);
    assert!(archive.is_fetching(&name) && archive.fetching_bytes() == bytes);
    let found = archive.delivered(delivered.recv().unwrap()).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", saved(1, &[1, 2])));
    assert_eq!(archive.fetching_bytes(), 0);
}

#[test]
fn the_budget_holds_and_the_longest_unused_goes() {
    let scene = Scene::new(2);
    scene.file(&[saved(1, &[3, 4]), saved(1, &[1, 2])]);
    scene.file(&[saved(1, &[5, 6])]);
    assert_eq!(scene.found(1, &[1, 2, 9]), 0);
    assert_eq!(scene.found(1, &[3, 4, 9]), 2);
    // Used again, it stays without being written again, and the other goes.
    scene.file(&[saved(1, &[3, 4]), saved(1, &[7, 8])]);
    assert_eq!(scene.found(1, &[5, 6, 9]), 0);
    assert_eq!(scene.found(1, &[3, 4, 9]), 2);
    assert_eq!(scene.found(1, &[7, 8, 9]), 2);
    let bytes: u64 = scene
        .files()
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(bytes <= scene.bytes, "{bytes}");
}

#[test]
fn a_longer_history_takes_the_place_of_its_own_beginning_and_of_nobody_elses() {
    let scene = Scene::new(9);
    scene.file(&[saved(1, &[1, 2]), saved(2, &[1, 2])]);
    scene.file(&[saved(1, &[1, 2, 3]), saved(1, &[1, 2])]);
    assert_eq!(scene.files().len(), 2);
    assert_eq!(scene.found(1, &[1, 2, 3, 4]), 3);
    assert_eq!(scene.found(2, &[1, 2, 3, 4]), 2);
}

#[test]
fn what_belongs_to_another_server_or_is_damaged_is_removed_and_nothing_else_is() {
    let scene = Scene::new(4);
    scene.file(&[saved(1, &[1, 2]), saved(1, &[3, 4])]);
    fs::write(scene.folder.path().join("kept/notes.txt"), "mine").unwrap();
    fs::write(scene.folder.path().join("kept/.x.unfinished"), "half").unwrap();
    let path = scene.files().into_iter().map(|entry| entry.path());
    let path = path
        .filter(|path| path.to_string_lossy().ends_with(folder::KEPT))
        .min();
    let mut bytes = fs::read(path.as_ref().unwrap()).unwrap();
    bytes.truncate(500);
    fs::write(path.unwrap(), bytes).unwrap();
    assert_eq!(scene.open().0.filed.len(), 1);
    assert_eq!(scene.files().len(), 2, "one state and the notes");
    let other = Identity::new([("model", "n".into())]);
    assert_eq!(scene.open_as(other).0.filed.len(), 0);
    assert_eq!(scene.files().len(), 1, "the notes");
}

#[test]
fn a_file_that_was_damaged_after_the_start_is_given_up_when_it_is_read() {
    let scene = Scene::new(4);
    scene.file(&[saved(1, &[1, 2])]);
    let (mut archive, delivered) = scene.open();
    let (name, bytes, _) = archive.find(Some(1), &[1, 2, 3], ANYWHERE).unwrap();
    let path = archive.shelf.folder.file(&name);
    let mut content = fs::read(&path).unwrap();
    let last = content.len() - 50;
    content[last] ^= 1;
    fs::write(&path, content).unwrap();
    archive.order(name, bytes);
    assert!(archive.delivered(delivered.recv().unwrap()).is_none());
    assert!(archive.find(Some(1), &[1, 2, 3], ANYWHERE).is_none());
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_written_in_time_is_left_out() {
    let mut scene = Scene::new(4);
    scene.within = Duration::ZERO;
    scene.file(&[saved(1, &[1, 2])]);
    assert_eq!(scene.files().len(), 0);
}

#[test]
fn a_folder_is_one_servers_and_one_owners() {
    let scene = Scene::new(4);
    let path = scene.folder.path().join("kept");
    let _first = Folder::open(path.clone()).unwrap();
    let second = Folder::open(path.clone()).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn what_is_erased_is_erased_here_too() {
    let scene = Scene::new(4);
    scene.file(&[saved(1, &[1, 2]), saved(1, &[3, 4])]);
    scene.open().0.forget(&saved(1, &[1, 2, 3]).prefix);
    assert_eq!(scene.found(1, &[1, 2, 9]), 0);
    assert_eq!(scene.found(1, &[3, 4, 9]), 2);
}

#[test]
fn what_is_erased_while_it_is_read_does_not_come_back() {
    let scene = Scene::new(4);
    scene.file(&[saved(1, &[1, 2])]);
    let (mut archive, delivered) = scene.open();
    let (name, bytes, _) = archive.find(Some(1), &[1, 2, 3], ANYWHERE).unwrap();
    archive.order(name, bytes);
    archive.forget(&saved(1, &[1, 2]).prefix);
    assert!(archive.delivered(delivered.recv().unwrap()).is_none());
    assert_eq!(archive.fetching_bytes(), 0);
}
