//! One file over HTTP: whatever the server does, the pinned bytes are installed or nothing is.

use std::{
    fs,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use llm_server::fetch::{FetchError, Fetched, Hub};
use proptest::prelude::*;

use super::{
    Answer, ETAG, REVISION, Room, Server, bad_server, content, digest, entry, good_server,
};

/// Fetches `content` as pinned, and checks that it is installed and alone.
fn installs(room: &Room, content: &[u8]) {
    let entry = entry(content);
    let fetched = room.fetch.entry("tiny", &entry).expect("fetched");
    assert_eq!(fetched, Fetched::New(room.path(&entry)));
    assert!(
        fs::read(room.path(&entry)).unwrap() == content,
        "other bytes"
    );
    assert_eq!(room.files().len(), 1, "{:?}", room.files());
}

/// Fetches `content` as pinned, and checks that the refusal left nothing behind.
fn refuses(room: &Room, content: &[u8]) -> FetchError {
    let error = room
        .fetch
        .entry("tiny", &entry(content))
        .expect_err("refused");
    assert_eq!(room.files(), Vec::<String>::new());
    error
}

#[test]
fn a_file_is_installed_and_not_asked_for_again() {
    let content = content(3_000_000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    installs(&room, &content);
    let requests = server.requests();
    assert_eq!(
        requests[0].target,
        format!("/owner/tiny/resolve/{REVISION}/sub%20dir/tiny.gguf")
    );
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
    assert_eq!(requests[0].header("range"), None);

    let entry = entry(&content);
    let again = room.fetch.entry("tiny", &entry).unwrap();
    assert_eq!(again, Fetched::There(room.path(&entry)));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_cut_connection_goes_on_where_it_stopped() {
    let content = content(500_000);
    let server = bad_server(&content, |_, before, answer| match before {
        0 => answer.cut_after(123_456),
        _ => answer,
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range_start(), Some(123_456));
    assert_eq!(requests[1].header("if-range"), Some(ETAG));
    assert_eq!(room.pauses().len(), 1);
}

#[test]
fn what_an_earlier_process_left_is_used() {
    let content = content(500_000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    fs::write(room.part(&entry(&content)), &content[..400_001]).unwrap();
    installs(&room, &content);
    assert_eq!(server.requests()[0].range_start(), Some(400_001));
}

#[test]
fn a_whole_part_is_installed_without_a_request() {
    let content = content(500_000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    fs::write(room.part(&entry(&content)), &content).unwrap();
    installs(&room, &content);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_part_longer_than_the_file_is_started_anew() {
    let pinned = content(1000);
    let server = good_server(&pinned);
    let room = Room::new(&server.url());
    fs::write(room.part(&entry(&pinned)), content(1001)).unwrap();
    installs(&room, &pinned);
    assert_eq!(server.requests()[0].header("range"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any points of interruption, within one process and between processes.
    #[test]
    fn any_interruptions_give_the_same_file_and_no_byte_twice(
        length in 1_usize..40_000,
        mut cuts in proptest::collection::vec(0_usize..40_000, 0..6),
        processes in 1_usize..4,
    ) {
        let content = content(length);
        cuts.retain(|cut| *cut < length);
        cuts.sort_unstable();
        cuts.dedup();
        let sent = Arc::new(AtomicUsize::new(0));
        let server = bad_server(&content, {
            let (sent, cuts) = (Arc::clone(&sent), cuts.clone());
            move |request, before, answer| {
                let start = request.range_start().unwrap_or(0);
                let end = cuts.get(before).map_or(length, |cut| (*cut).max(start));
                sent.fetch_add(end - start, Ordering::SeqCst);
                answer.cut_after(end - start)
            }
        });
        let mut room = Room::new(&server.url());
        // With one attempt each, every cut ends a process; the next takes over its part.
        room.fetch.backoff.attempts = if processes == 1 { 1 } else { 7 };
        let entry = entry(&content);
        let fetched = (0..7).find_map(|_| room.fetch.entry("tiny", &entry).ok());
        prop_assert_eq!(fetched, Some(Fetched::New(room.path(&entry))));
        prop_assert!(fs::read(room.path(&entry)).unwrap() == content);
        prop_assert_eq!(sent.load(Ordering::SeqCst), length);
        prop_assert_eq!(room.files().len(), 1);
    }
}

#[test]
fn a_server_that_ignores_ranges_sends_the_whole_again() {
    let content = content(300_000);
    let whole = content.clone();
    let server = Server::start(move |_, before| {
        let answer = Answer::new(200, whole.clone());
        if before == 0 {
            answer.cut_after(200_000)
        } else {
            answer
        }
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    assert_eq!(server.requests()[1].range_start(), Some(200_000));
}

#[test]
fn a_server_that_always_cuts_at_the_same_place_is_given_up() {
    let content = content(300_000);
    let whole = content.clone();
    let server = Server::start(move |_, _| Answer::new(200, whole.clone()).cut_after(200_000));
    let room = Room::new(&server.url());
    let error = room.fetch.entry("tiny", &entry(&content)).unwrap_err();
    assert!(
        matches!(error, FetchError::GaveUp { attempts: 4, .. }),
        "{error}"
    );
    assert!(!room.path(&entry(&content)).exists());
}

#[test]
fn a_file_that_changed_on_the_server_is_started_anew() {
    let content = content(300_000);
    let old = super::content(300_001);
    let new = content.clone();
    let server = Server::start(move |request, before| match before {
        0 => Answer::file(request, &old[1..], "\"old\"").cut_after(100_000),
        _ => Answer::file(request, &new, "\"new\""),
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    assert_eq!(server.requests()[1].header("if-range"), Some("\"old\""));
}

#[test]
fn a_range_that_cannot_be_satisfied_starts_anew() {
    let content = content(300_000);
    let server = bad_server(&content, |request, _, answer| match request.range_start() {
        Some(_) => Answer::new(416, ""),
        None => answer,
    });
    let room = Room::new(&server.url());
    fs::write(room.part(&entry(&content)), &content[..1000]).unwrap();
    installs(&room, &content);
}

#[test]
fn a_weak_etag_is_no_condition_for_a_range() {
    let content = content(300_000);
    let whole = content.clone();
    let server = Server::start(move |request, before| {
        let answer = Answer::file(request, &whole, "W/\"v1\"");
        if before == 0 {
            answer.cut_after(10)
        } else {
            answer
        }
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    assert_eq!(server.requests()[1].header("if-range"), None);
}

#[test]
fn wrong_bytes_are_refused_with_both_digests() {
    let pinned = content(300_000);
    let mut wrong = pinned.clone();
    wrong[299_999] ^= 1;
    let server = good_server(&wrong);
    let room = Room::new(&server.url());
    let said = refuses(&room, &pinned).to_string();
    assert!(said.contains(&digest(&pinned).to_string()), "{said}");
    assert!(said.contains(&digest(&wrong).to_string()), "{said}");
}

#[test]
fn a_wrong_beginning_is_thrown_away_so_that_the_next_fetch_works() {
    let content = content(300_000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    fs::write(room.part(&entry(&content)), vec![0; 1000]).unwrap();
    let error = refuses(&room, &content);
    assert!(matches!(error, FetchError::Mismatch { .. }), "{error}");
    installs(&room, &content);
}

#[test]
fn an_installed_file_that_is_not_the_pinned_one_is_replaced() {
    let content = content(300_000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    fs::write(room.path(&entry(&content)), b"something else").unwrap();
    installs(&room, &content);
}

#[test]
fn a_lie_about_the_length_is_refused() {
    let content = content(300_000);
    for announced in [299_999, 300_001] {
        let server = bad_server(&content, move |_, _, answer| answer.announcing(announced));
        let room = Room::new(&server.url());
        let error = refuses(&room, &content);
        assert!(
            matches!(error, FetchError::Length { offered, pinned: 300_000, .. } if offered == announced as u64),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_range_of_a_longer_file_is_refused() {
    let content = content(300_000);
    let server = bad_server(&content, |_, _, _| {
        Answer::new(206, "x").with("Content-Range", "bytes 1000-1000/300001")
    });
    let room = Room::new(&server.url());
    fs::write(room.part(&entry(&content)), &content[..1000]).unwrap();
    let error = refuses(&room, &content);
    assert!(
        matches!(
            error,
            FetchError::Length {
                offered: 300_001,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn more_bytes_than_pinned_are_refused_when_no_length_was_announced() {
    let pinned = content(300_000);
    for surplus in [1, 100_000] {
        let longer = content(300_000 + surplus);
        let server = Server::start(move |_, _| Answer::new(200, longer.clone()).without_length());
        let room = Room::new(&server.url());
        let error = refuses(&room, &pinned);
        assert!(matches!(error, FetchError::Length { .. }), "{error}");
    }
}

#[test]
fn fewer_bytes_than_pinned_are_a_lost_connection_when_no_length_was_announced() {
    let content = content(300_000);
    let server = bad_server(&content, |_, before, answer| match before {
        0 => answer.cut_after(1000).without_length(),
        _ => answer,
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    assert_eq!(server.requests()[1].range_start(), Some(1000));
}

#[test]
fn a_busy_server_is_asked_again_after_the_time_it_wishes() {
    let content = content(1000);
    let server = bad_server(&content, |_, before, answer| match before {
        0 => Answer::new(503, ""),
        1 => Answer::new(429, "").with("Retry-After", "77"),
        2 => Answer::new(408, ""),
        _ => answer,
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    let pauses = room.pauses();
    assert_eq!(pauses.len(), 3);
    assert!(pauses[0] <= Duration::from_secs(1), "{pauses:?}");
    assert_eq!(pauses[1], Duration::from_secs(77));
    assert!(
        pauses[2] >= Duration::from_secs(2) && pauses[2] <= Duration::from_secs(4),
        "{pauses:?}"
    );
}

#[test]
fn progress_starts_the_count_of_attempts_again() {
    let content = content(100_000);
    let server = bad_server(&content, |request, _, answer| {
        let left = 100_000 - request.range_start().unwrap_or(0);
        answer.cut_after(left.min(10_000))
    });
    let room = Room::new(&server.url());
    installs(&room, &content);
    assert_eq!(server.requests().len(), 10);
}

#[test]
fn a_broken_server_is_given_up_and_what_came_is_kept() {
    let content = content(100_000);
    let server = bad_server(&content, |_, before, answer| match before {
        0 => answer.cut_after(1000),
        _ => Answer::new(500, ""),
    });
    let room = Room::new(&server.url());
    let error = room.fetch.entry("tiny", &entry(&content)).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("4 failed attempts") && said.contains("500"),
        "{said}"
    );
    assert_eq!(server.requests().len(), 4);
    assert_eq!(
        fs::read(room.part(&entry(&content))).unwrap(),
        content[..1000]
    );
}

#[test]
fn a_refusal_ends_at_once_and_says_what_to_do() {
    let content = content(1000);
    for (status, advice) in [
        (401, "HF_TOKEN"),
        (403, "accept the licence"),
        (404, "removed or renamed"),
        (418, "HF_ENDPOINT"),
    ] {
        let server = Server::start(move |_, _| Answer::new(status, "no"));
        let room = Room::new(&server.url());
        let said = refuses(&room, &content).to_string();
        assert!(
            said.contains(&status.to_string()) && said.contains(advice),
            "{said}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_silent_server_is_a_lost_connection() {
    let content = content(1000);
    let server = bad_server(&content, |_, before, answer| match before {
        0 => answer.silent_after(500),
        _ => answer,
    });
    let room = Room::with_hub(Hub::at(&server.url(), None, Duration::from_millis(200)).unwrap());
    installs(&room, &content);
    assert_eq!(server.requests()[1].range_start(), Some(500));
}

#[test]
fn nobody_listening_is_tried_again_and_then_named() {
    let server = good_server(b"x");
    let url = server.url();
    drop(server);
    let room = Room::new(&url);
    let error = refuses(&room, &content(1000));
    assert!(
        matches!(&error, FetchError::GaveUp { url: asked, .. } if asked.starts_with(&url)),
        "{error}"
    );
    assert_eq!(room.pauses().len(), 3);
}

#[test]
fn a_redirect_is_followed_and_another_host_never_sees_the_token() {
    let content = content(300_000);
    let files = good_server(&content);
    let port = files.address().port();
    let hub = Server::start(move |request, _| {
        Answer::redirect(format!("http://localhost:{port}{}", request.target))
    });
    let with_token = Hub::at(&hub.url(), None, Duration::from_secs(20))
        .unwrap()
        .with_token("hf_secret");
    assert!(!format!("{with_token:?}").contains("secret"));
    let room = Room::with_hub(with_token);
    installs(&room, &content);
    assert_eq!(
        hub.requests()[0].header("authorization"),
        Some("Bearer hf_secret")
    );
    assert_eq!(files.requests()[0].header("authorization"), None);
}

#[test]
fn a_proxy_is_asked_instead_of_the_host() {
    let content = content(1000);
    let proxy = good_server(&content);
    let through = ureq::Proxy::new(&proxy.url()).unwrap();
    let hub = Hub::at("http://hub.invalid", Some(through), Duration::from_secs(20)).unwrap();
    let room = Room::with_hub(hub);
    installs(&room, &content);
    assert!(
        proxy
            .requests()
            .iter()
            .any(|request| request.target.contains("hub.invalid"))
    );
}

#[test]
fn fetches_at_the_same_time_download_once() {
    let content = content(2_000_000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    let entry = entry(&content);
    let start = Barrier::new(4);
    let fetched: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                // Each with its own handle on the one store, as processes have.
                let mut other = Room::new(&server.url());
                other.fetch.store = room.fetch.store.clone();
                let (start, entry) = (&start, &entry);
                scope.spawn(move || {
                    start.wait();
                    other.fetch.entry("tiny", entry).expect("fetched")
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(server.requests().len(), 1);
    let new = fetched.iter().filter(|one| matches!(one, Fetched::New(_)));
    assert_eq!(new.count(), 1);
    assert_eq!(room.files().len(), 1);
}

#[test]
fn a_disk_without_room_is_noticed_before_anything_is_asked_for() {
    let content = content(1000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    let mut entry = entry(&content);
    entry.size = 1 << 62;
    let error = room.fetch.entry("tiny", &entry).unwrap_err();
    assert!(
        matches!(error, FetchError::Space { needed, free, .. } if needed == 1 << 62 && free > 0),
        "{error}"
    );
    assert!(error.to_string().contains("LLM_SERVER_MODELS"), "{error}");
    assert_eq!(server.requests().len(), 0);
    assert_eq!(room.files(), Vec::<String>::new());
}

#[test]
fn companions_come_with_their_model() {
    let content = content(1000);
    let server = good_server(&content);
    let room = Room::new(&server.url());
    let table = |name: &str, more: &str| {
        let entry = entry(&content);
        format!("{}{more}\n", llm_server::lock::table_text(name, &entry))
    };
    let text = table("model", "mmproj = \"eye\"") + &table("eye", "") + &table("other", "");
    let lock = llm_server::lock::Lock::parse(&text).unwrap();
    let fetched = room.fetch.model(&lock, "model").unwrap();
    let names: Vec<_> = fetched.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["model", "eye"]);
    assert!(matches!(
        room.fetch.model(&lock, "absent"),
        Err(FetchError::Unknown(_))
    ));
}
