//! One process and a server that behaves, and misbehaves, as the hub does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::server::{COMMIT, FakeHub, Trouble, digest, fetch, fetch_data, noise, token};
use lowburn_hub::{GLUE_FILES, Hub, HubError};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

const SIZE: usize = 1_000_000;

/// A model as on the hub, with much that is not needed.
fn roberta() -> FakeHub {
    FakeHub::model("owner/roberta")
        .small("README.md", b"read me")
        .small("config.json", b"{}")
        .small("tokenizer.json", b"{\"a\": 1}")
        .small("vocab.txt", b"a")
        .large("model.safetensors", &noise(SIZE))
        .large("pytorch_model.bin", &noise(99))
        .large("tf_model.h5", &noise(98))
}

/// Names of all files below a folder that may hold contents, with `/`.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// No name in the cache promises a content that is not there.
fn assert_sound(cache: &Path) {
    for name in names(cache) {
        let path = cache.join(&name);
        let Some((_, blob)) = name.split_once("/blobs/") else {
            assert!(path.exists(), "{name} leads nowhere");
            continue;
        };
        if !blob.contains(".incomplete") {
            let content = fs::read(&path).unwrap();
            assert_eq!(digest(&content, blob.len() == 64), blob);
        }
    }
}

fn whole(path: PathBuf) {
    assert_eq!(fs::read(path).unwrap(), noise(SIZE));
}

#[test]
fn a_model_is_fetched_once_into_the_layout_of_python() {
    let (hub, cache) = (roberta(), scratch());
    let (found, lines) = fetch(&hub.client(cache.path()), "owner/roberta");
    let found = found.unwrap();
    let root = cache.path().join("models--owner--roberta");
    assert_eq!(found.path, root.join("snapshots").join(COMMIT));
    assert_eq!(found.commit, COMMIT);
    assert_eq!(
        names(&found.path),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let blob = digest(&noise(SIZE), true);
    whole(root.join("blobs").join(&blob));
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(found.path.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(&blob)
    );
    assert!(
        cache
            .path()
            .join(format!(".locks/models--owner--roberta/{blob}.lock"))
            .exists()
    );
    assert_eq!(lines[0], "started config.json at 0");
    assert!(
        lines.contains(&format!("finished model.safetensors {SIZE}")),
        "{lines:?}"
    );
    assert_sound(cache.path());

    // The second time only the commit is asked for.
    let before = hub.seen().len();
    let (again, lines) = fetch(&hub.client(cache.path()), "owner/roberta");
    assert_eq!(again.unwrap(), found);
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(hub.seen().len(), before + 1);
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_host() {
    let (hub, cache) = (roberta(), scratch());
    let mut settings = hub.settings(cache.path());
    settings.token = token("hf_secret");
    fetch(&Hub::new(settings).unwrap(), "owner/roberta")
        .0
        .unwrap();
    let seen = hub.seen();
    assert!(seen.iter().any(|request| request.cdn));
    for request in seen {
        let expected = (!request.cdn).then_some("Bearer hf_secret");
        assert_eq!(request.authorization.as_deref(), expected, "{request:?}");
    }
}

#[test]
fn an_old_name_leads_to_the_new_one() {
    let (hub, cache) = (roberta().renamed_from("roberta"), scratch());
    let found = fetch(&hub.client(cache.path()), "roberta").0.unwrap();
    assert!(found.path.starts_with(cache.path().join("models--roberta")));
    whole(found.path.join("model.safetensors"));
}

#[test]
fn what_the_hub_refuses_has_its_own_words() {
    let code = |code: &str| vec![("X-Error-Code", code.to_owned())];
    let words = |text: &str| vec![("X-Error-Message", text.to_owned())];
    let cases = [
        ("list", 401, code("RepoNotFound"), "no such repository"),
        ("list", 401, vec![], "or set HF_TOKEN"),
        ("list", 404, code("RepoNotFound"), "check the name"),
        ("list", 404, code("RevisionNotFound"), "no revision `v9`"),
        (
            "list",
            401,
            words("Invalid credentials in Authorization header"),
            "no valid token",
        ),
        ("list", 403, code("GatedRepo"), "accept the conditions"),
        ("list", 403, words("Not yours"), "403, Not yours"),
        (
            "HEAD config.json",
            404,
            code("EntryNotFound"),
            "no file `config.json`",
        ),
        (
            "HEAD config.json",
            401,
            code("GatedRepo"),
            "accept the conditions",
        ),
        ("GET config.json", 403, vec![], "set HF_TOKEN"),
        ("list", 418, vec![], "answers 418"),
    ];
    for (request, status, headers, expected) in cases {
        let (hub, cache) = (roberta(), scratch());
        hub.trouble(request, &[Trouble::Status(status, headers)]);
        let (outcome, lines) = fetch(&hub.client(cache.path()), "owner/roberta@v9");
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(expected), "{status}: {message}");
        assert!(message.contains("owner/roberta@v9"), "{message}");
        assert!(
            !lines.iter().any(|line| line.contains("retry")),
            "{lines:?}"
        );
        assert_sound(cache.path());
        assert!(!cache.path().join("models--owner--roberta/refs").exists());
    }
    let (hub, cache) = (roberta(), scratch());
    let message = fetch(&hub.client(cache.path()), "owner/other")
        .0
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no such folder") && message.contains("owner/other"),
        "{message}"
    );
}

#[test]
fn failures_that_pass_are_tried_again() {
    let status = |status| Trouble::Status(status, vec![]);
    let wait = Trouble::Status(429, vec![("Retry-After", "0".to_owned())]);
    for request in ["list", "HEAD model.safetensors", "GET model.safetensors"] {
        let (hub, cache) = (roberta(), scratch());
        hub.trouble(
            request,
            &[wait.clone(), status(500), status(503), status(408)],
        );
        let (outcome, lines) = fetch(&hub.client(cache.path()), "owner/roberta");
        whole(outcome.unwrap().path.join("model.safetensors"));
        let retries = lines
            .iter()
            .filter(|line| line.starts_with("retry"))
            .count();
        assert_eq!(retries, 4, "{lines:?}");
        assert_sound(cache.path());
    }
}

#[test]
fn failures_that_stay_end_with_an_error_and_no_file() {
    for (status, expected) in [(500, "status 500"), (429, "too many requests")] {
        for request in ["list", "HEAD config.json", "GET model.safetensors"] {
            let (hub, cache) = (roberta(), scratch());
            hub.trouble(request, &vec![Trouble::Status(status, vec![]); 5]);
            let message = fetch(&hub.client(cache.path()), "owner/roberta")
                .0
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(expected) && message.contains("5 attempts"),
                "{message}"
            );
            assert_sound(cache.path());
            assert!(!cache.path().join("models--owner--roberta/refs").exists());
            // And when the hub is well again, all is well.
            let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
            whole(found.path.join("model.safetensors"));
        }
    }
    // The other host's refusals are the hub's redirects gone stale, not an answer about the repository.
    let (hub, cache) = (roberta(), scratch());
    hub.trouble("GET model.safetensors", &[Trouble::Status(403, vec![])]);
    fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
}

#[test]
fn a_server_that_asks_for_a_long_pause_is_not_waited_for() {
    let (hub, cache) = (roberta(), scratch());
    hub.trouble(
        "list",
        &[Trouble::Status(
            429,
            vec![("Retry-After", "86400".to_owned())],
        )],
    );
    let message = fetch(&hub.client(cache.path()), "owner/roberta")
        .0
        .unwrap_err()
        .to_string();
    assert!(message.contains("wait 86400 s"), "{message}");
}

#[test]
fn a_cut_connection_is_gone_on_with() {
    let (hub, cache) = (roberta(), scratch());
    hub.trouble(
        "GET model.safetensors",
        &[Trouble::Cut(400_000), Trouble::Cut(300_000)],
    );
    let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
    whole(found.path.join("model.safetensors"));
    let from = hub.fetched("model.safetensors");
    assert_eq!(from, [0, 400_000, 700_000]);
}

#[test]
fn progress_counts_as_hope() {
    // More cuts than attempts, each a little further.
    let (hub, cache) = (roberta(), scratch());
    hub.trouble("GET model.safetensors", &vec![Trouble::Cut(50_000); 12]);
    let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
    whole(found.path.join("model.safetensors"));
    // A server that begins anew each time and ends at the same place gets no further.
    let (hub, cache) = (roberta(), scratch());
    hub.trouble(
        "GET model.safetensors",
        &vec![Trouble::NoRange(50_000); 100],
    );
    assert!(matches!(
        fetch(&hub.client(cache.path()), "owner/roberta").0,
        Err(HubError::Unreachable { .. })
    ));
    assert!(hub.fetched("model.safetensors").len() < 10);
}

#[test]
fn another_process_goes_on_with_what_the_first_left() {
    let (hub, cache) = (roberta(), scratch());
    hub.trouble("GET model.safetensors", &[Trouble::Cut(400_000)]);
    let mut settings = hub.settings(cache.path());
    settings.attempts = 1;
    let message = fetch(&Hub::new(settings).unwrap(), "owner/roberta")
        .0
        .unwrap_err()
        .to_string();
    assert!(message.contains("400000 of 1000000 bytes"), "{message}");
    assert_sound(cache.path());
    let (found, lines) = fetch(&hub.client(cache.path()), "owner/roberta");
    whole(found.unwrap().path.join("model.safetensors"));
    assert!(
        lines.contains(&"started model.safetensors at 400000".to_owned()),
        "{lines:?}"
    );
    assert_eq!(hub.fetched("model.safetensors"), [0, 400_000]);
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let (hub, cache) = (roberta(), scratch());
    hub.trouble(
        "GET model.safetensors",
        &[Trouble::Cut(400_000), Trouble::NoRange(SIZE)],
    );
    let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
    whole(found.path.join("model.safetensors"));
    assert_eq!(hub.fetched("model.safetensors"), [0, 400_000]);
}

#[test]
fn what_lies_there_half_done_is_not_believed() {
    let blob = digest(&noise(SIZE), true);
    let wrong: Vec<u8> = noise(SIZE).iter().map(|byte| byte ^ 1).collect();
    let longer = [noise(SIZE), vec![0]].concat();
    // (what lies there, the requests for the content)
    let cases: [(&[u8], &[usize]); 5] = [
        (&wrong[..1000], &[1000, 0]),
        (&wrong, &[0]),
        (&longer, &[0]),
        (&noise(SIZE), &[]),
        (&noise(SIZE)[..999_999], &[999_999]),
    ];
    for (content, requests) in cases {
        let (hub, cache) = (roberta(), scratch());
        let blobs = cache.path().join("models--owner--roberta/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{blob}.incomplete")), content).unwrap();
        let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
        whole(found.path.join("model.safetensors"));
        assert_eq!(hub.fetched("model.safetensors"), requests);
        assert!(!blobs.join(format!("{blob}.incomplete")).exists());
    }
}

#[test]
fn wrong_bytes_are_fetched_again_once_and_never_kept() {
    let (hub, cache) = (roberta(), scratch());
    hub.trouble("GET model.safetensors", &[Trouble::Wrong]);
    whole(
        fetch(&hub.client(cache.path()), "owner/roberta")
            .0
            .unwrap()
            .path
            .join("model.safetensors"),
    );

    for file in ["model.safetensors", "tokenizer.json"] {
        let (hub, cache) = (roberta(), scratch());
        hub.trouble(&format!("GET {file}"), &[Trouble::Wrong, Trouble::Wrong]);
        let outcome = fetch(&hub.client(cache.path()), "owner/roberta").0;
        let Err(HubError::WrongBytes { file: named, .. }) = &outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(named, file);
        assert_sound(cache.path());
        assert!(
            !names(cache.path())
                .iter()
                .any(|name| name.contains("incomplete"))
        );
        let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
        whole(found.path.join("model.safetensors"));
    }
}

#[test]
fn more_bytes_than_promised_are_not_taken() {
    let (hub, cache) = (roberta(), scratch());
    hub.trouble("GET model.safetensors", &vec![Trouble::TooMuch; 200]);
    let message = fetch(&hub.client(cache.path()), "owner/roberta")
        .0
        .unwrap_err()
        .to_string();
    assert!(message.contains("more bytes"), "{message}");
    assert_sound(cache.path());
}

#[test]
fn silence_ends_an_attempt_and_slowness_does_not() {
    let (hub, cache) = (roberta(), scratch());
    let mut settings = hub.settings(cache.path());
    settings.silence = Duration::from_secs(1);
    hub.trouble(
        "GET model.safetensors",
        &[Trouble::Stall(Duration::from_secs(8))],
    );
    // 8 pieces, each within the limit, all together far beyond it.
    hub.trouble(
        "GET tokenizer.json",
        &[Trouble::Drip(1, Duration::from_millis(200))],
    );
    let (found, lines) = fetch(&Hub::new(settings).unwrap(), "owner/roberta");
    whole(found.unwrap().path.join("model.safetensors"));
    assert_eq!(hub.fetched("model.safetensors"), [0, SIZE / 2]);
    assert_eq!(hub.fetched("tokenizer.json"), [0]);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("retry"))
            .count(),
        1,
        "{lines:?}"
    );
}

#[test]
fn an_empty_file_is_a_file() {
    let cache = scratch();
    let hub = roberta()
        .small("merges.txt", b"")
        .large("added_tokens.json", b"");
    let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
    for file in ["merges.txt", "added_tokens.json"] {
        assert_eq!(fs::read(found.path.join(file)).unwrap(), b"");
    }
    assert_sound(cache.path());
}

#[test]
fn a_server_that_is_no_hub_is_called_that() {
    let cache = scratch();
    for tag in [
        "abc",
        "../../../etc/passwd",
        "d41d8cd98f00b204e9800998ecf8427e-2",
    ] {
        let hub = roberta();
        hub.trouble("HEAD config.json", &[Trouble::Etag(tag)]);
        let message = fetch(&hub.client(cache.path()), "owner/roberta")
            .0
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("no digest") && message.contains("HF_ENDPOINT"),
            "{message}"
        );
    }
    for listing in ["<html>", "{}", r#"{"sha": "../../../x", "siblings": []}"#] {
        let hub = roberta().listing(listing);
        let message = fetch(&hub.client(cache.path()), "owner/roberta")
            .0
            .unwrap_err()
            .to_string();
        assert!(message.contains("no answer of a hub"), "{message}");
    }
    let round = Trouble::Status(
        302,
        vec![(
            "Location",
            "/api/models/owner/roberta/revision/main".to_owned(),
        )],
    );
    let hub = roberta();
    hub.trouble("list", &vec![round; 50]);
    let message = fetch(&hub.client(cache.path()), "owner/roberta")
        .0
        .unwrap_err()
        .to_string();
    assert!(message.contains("too many redirects"), "{message}");
    assert_sound(cache.path());
}

#[test]
fn shards_are_those_that_the_index_names() {
    let index = br#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}"#;
    let hub = |index: &[u8]| {
        FakeHub::model("big/model")
            .small("config.json", b"{}")
            .small("model.safetensors.index.json", index)
            .large("m-1.safetensors", b"one")
            .large("m-2.safetensors", b"two")
            .large("m-3.safetensors", b"three")
    };
    let cache = scratch();
    let server = hub(index);
    let found = fetch(&server.client(cache.path()), "big/model").0.unwrap();
    let expected = [
        "config.json",
        "m-1.safetensors",
        "m-2.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names(&found.path), expected);

    // A shard that is not in the cache counts as missing there.
    fs::remove_file(found.path.join("m-2.safetensors")).unwrap();
    let mut settings = server.settings(cache.path());
    settings.offline = true;
    let message = fetch(&Hub::new(settings).unwrap(), "big/model")
        .0
        .unwrap_err()
        .to_string();
    assert!(message.contains("m-2.safetensors is missing"), "{message}");

    let cache = scratch();
    let hostile = br#"{"weight_map": {"a": "../../../../evil"}}"#;
    let message = fetch(&hub(hostile).client(cache.path()), "big/model")
        .0
        .unwrap_err()
        .to_string();
    assert!(message.contains("evil"), "{message}");
}

#[test]
fn a_repository_without_weights_is_refused_before_anything_is_fetched() {
    let (hub, cache) = (FakeHub::model("a/b").small("config.json", b"{}"), scratch());
    let message = fetch(&hub.client(cache.path()), "a/b")
        .0
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no model.safetensors or pytorch_model.bin"),
        "{message}"
    );
    assert_eq!(hub.seen().len(), 1);
}

#[test]
fn offline_the_cache_is_enough_or_the_way_out_is_named() {
    let (hub, cache) = (roberta(), scratch());
    let mut settings = hub.settings(cache.path());
    settings.offline = true;
    let offline = Hub::new(settings).unwrap();
    let message = fetch(&offline, "owner/roberta").0.unwrap_err().to_string();
    for part in ["owner/roberta", "cargo xtask fetch", "unset HF_HUB_OFFLINE"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(hub.seen().is_empty());
    let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
    let before = hub.seen().len();
    assert_eq!(fetch(&offline, "owner/roberta").0.unwrap(), found);
    // A commit that was fetched under another name of it needs no network either, offline or not.
    let by_hash = format!("owner/roberta@{COMMIT}");
    assert_eq!(fetch(&offline, &by_hash).0.unwrap(), found);
    assert_eq!(fetch(&hub.client(cache.path()), &by_hash).0.unwrap(), found);
    assert_eq!(hub.seen().len(), before);
    assert!(matches!(
        fetch(&offline, "owner/roberta@v2").0,
        Err(HubError::Offline { .. })
    ));
    fs::remove_file(found.path.join("model.safetensors")).unwrap();
    assert!(matches!(
        fetch(&offline, "owner/roberta").0,
        Err(HubError::Offline { .. })
    ));
}

#[test]
fn a_hub_out_of_reach_is_no_obstacle_when_the_cache_has_it() {
    let (hub, cache) = (roberta(), scratch());
    let found = fetch(&hub.client(cache.path()), "owner/roberta").0.unwrap();
    let mut settings = hub.settings(cache.path());
    settings.endpoint = "http://127.0.0.1:9".to_owned();
    let client = Hub::new(settings).unwrap();
    let (again, lines) = fetch(&client, "owner/roberta");
    assert_eq!(again.unwrap(), found);
    assert!(
        lines.len() == 1 && lines[0].contains("out of reach"),
        "{lines:?}"
    );
    let message = fetch(&client, "owner/other").0.unwrap_err().to_string();
    assert!(
        message.contains("127.0.0.1:9") && message.contains("5 attempts"),
        "{message}"
    );
}

#[test]
fn where_links_cannot_be_the_files_themselves_are_there() {
    let (hub, cache) = (roberta(), scratch());
    let mut settings = hub.settings(cache.path());
    settings.symlinks = false;
    let client = Hub::new(settings).unwrap();
    let found = fetch(&client, "owner/roberta").0.unwrap();
    let path = found.path.join("model.safetensors");
    assert!(path.symlink_metadata().unwrap().is_file());
    whole(path);
    let requests = hub.seen().len();
    fetch(&client, "owner/roberta").0.unwrap();
    assert_eq!(hub.seen().len(), requests + 1);
    // A blob that is there already is copied, since others may need it.
    fetch(&hub.client(&cache.path().join("other")), "owner/roberta")
        .0
        .unwrap();
    fs::remove_dir_all(cache.path().join("other/models--owner--roberta/snapshots")).unwrap();
    let mut settings = hub.settings(&cache.path().join("other"));
    settings.symlinks = false;
    let found = fetch(&Hub::new(settings).unwrap(), "owner/roberta")
        .0
        .unwrap();
    whole(found.path.join("model.safetensors"));
    whole(
        cache
            .path()
            .join("other/models--owner--roberta/blobs")
            .join(digest(&noise(SIZE), true)),
    );
    assert_eq!(hub.fetched("model.safetensors").len(), 2);
}

#[test]
fn of_a_data_set_only_the_splits_asked_for_are_fetched() {
    let hub = FakeHub::data("some/glue")
        .large("rte/train-00000-of-00001.parquet", b"rte train")
        .large("rte/validation-00000-of-00001.parquet", b"rte validation")
        .large("mnli/train-00000-of-00002.parquet", b"mnli 0")
        .large("mnli/train-00001-of-00002.parquet", b"mnli 1");
    let cache = scratch();
    let client = hub.client(cache.path());
    let found = fetch_data(&client, "some/glue", &[("rte", "train")]).unwrap();
    assert_eq!(names(&found.path), ["rte/train-00000-of-00001.parquet"]);
    #[cfg(unix)]
    assert!(
        fs::read_link(found.path.join(&names(&found.path)[0]))
            .unwrap()
            .starts_with("../../../blobs")
    );
    fetch_data(&client, "some/glue", &[("rte", "train"), ("mnli", "train")]).unwrap();
    assert_eq!(names(&found.path).len(), 3);
    let message = fetch_data(&client, "some/glue", &[("rte", "test")])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("rte/test-00000-of-00001.parquet"),
        "{message}"
    );
    assert_sound(cache.path());
}

#[test]
fn a_glue_file_that_is_not_the_known_one_is_not_fetched_and_a_damaged_one_not_used() {
    let train = "rte/train-00000-of-00001.parquet";
    let known = GLUE_FILES
        .iter()
        .find(|file| file.task == "rte" && file.split == "train")
        .unwrap();
    for repo in ["nyu-mll/glue", "glue"] {
        for large in [true, false] {
            let server = FakeHub::data(repo);
            let server = if large {
                server.large(train, b"other")
            } else {
                server.small(train, b"other")
            };
            let cache = scratch();
            let error =
                fetch_data(&server.client(cache.path()), repo, &[("rte", "train")]).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains(train) && message.contains(known.sha256),
                "{message}"
            );
            assert!(message.contains("--data-dir"), "{message}");
            assert_eq!(server.fetched(train).len(), usize::from(!large));
            assert!(
                !names(cache.path())
                    .iter()
                    .any(|name| name.contains("/snapshots/"))
            );
        }
    }
    // Something else wrote the file into the cache.
    let cache = scratch();
    let folder = cache
        .path()
        .join("datasets--nyu-mll--glue/snapshots")
        .join(COMMIT);
    fs::create_dir_all(folder.join("rte")).unwrap();
    fs::write(folder.join(train), b"damaged").unwrap();
    let mut settings = FakeHub::data("nyu-mll/glue").settings(cache.path());
    settings.offline = true;
    let name = format!("nyu-mll/glue@{COMMIT}");
    let error = fetch_data(&Hub::new(settings).unwrap(), &name, &[("rte", "train")]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("with the known content is missing"),
        "{error}"
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_said() {
    let (hub, cache) = (roberta(), scratch());
    let file = cache.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let error = fetch(&hub.client(&file), "owner/roberta").0.unwrap_err();
    assert!(matches!(error, HubError::Io { .. }), "{error}");
}
