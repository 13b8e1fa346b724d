//! Several processes and one cache: a file is fetched once, and whoever dies holds up nobody.
//!
//! A child is this very test program, told by an environment variable to fetch and say what came of it. It reads its
//! settings from the environment, as the command line does.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{FakeHub, Trouble, digest, fetch, noise};

const SIZE: usize = 1_000_000;

fn hub() -> FakeHub {
    FakeHub::model("owner/roberta")
        .small("config.json", b"{}")
        .small("tokenizer.json", b"{\"a\": 1}")
        .large("model.safetensors", &noise(SIZE))
}

/// The work of a child; in the test program's own run there is none.
#[test]
fn child() {
    let Ok(name) = std::env::var("LOWBURN_TEST_CHILD") else {
        return;
    };
    match lowburn_hub::model(&name, &mut |_| {}) {
        Ok(found) => println!("found {}", found.path.display()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            println!("failed {error}: {}", cause.unwrap_or_default());
        }
    }
}

fn start(hub: &FakeHub, home: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "processes::child",
            "--nocapture",
            "--test-threads",
            "1",
        ])
        .env("LOWBURN_TEST_CHILD", "owner/roberta")
        .env("HF_ENDPOINT", &hub.endpoint)
        .env("HF_HOME", home)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("HF_TOKEN", "hf_child")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    ] {
        command.env_remove(name);
    }
    command
}

fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing happens");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn processes_that_want_the_same_file_fetch_it_once() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    // Slow enough that all of them meet.
    hub.trouble(
        "GET model.safetensors",
        &[Trouble::Drip(50_000, Duration::from_millis(30))],
    );
    let children: Vec<Child> = (0..4)
        .map(|_| start(&hub, home.path()).spawn().unwrap())
        .collect();
    for child in children {
        let said = said(child);
        assert!(said.contains("found "), "{said}");
    }
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert_eq!(hub.fetched(file), [0], "{file}");
    }
    assert!(
        hub.seen()
            .iter()
            .all(|seen| seen.cdn == seen.authorization.is_none())
    );
    let blob = home
        .path()
        .join("hub/models--owner--roberta/blobs")
        .join(digest(&noise(SIZE), true));
    assert_eq!(fs::read(blob).unwrap(), noise(SIZE));
}

#[test]
fn a_killed_process_holds_up_nobody_and_its_bytes_are_kept() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    hub.trouble(
        "GET model.safetensors",
        &[Trouble::Stall(Duration::from_secs(60))],
    );
    let mut child = start(&hub, home.path()).spawn().unwrap();
    let cache = home.path().join("hub");
    let blob = cache
        .join("models--owner--roberta/blobs")
        .join(digest(&noise(SIZE), true));
    let growing = blob.with_extension("incomplete");
    wait_for(|| {
        growing
            .metadata()
            .is_ok_and(|about| about.len() == SIZE as u64 / 2)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (found, lines) = fetch(&hub.client(&cache), "owner/roberta");
    let found = found.unwrap();
    assert_eq!(
        fs::read(found.path.join("model.safetensors")).unwrap(),
        noise(SIZE)
    );
    assert_eq!(hub.fetched("model.safetensors"), [0, SIZE / 2]);
    assert!(
        !lines.iter().any(|line| line.starts_with("waiting")),
        "{lines:?}"
    );
}

#[test]
fn who_waits_hears_that_it_does() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    hub.trouble(
        "GET model.safetensors",
        &[Trouble::Drip(50_000, Duration::from_millis(60))],
    );
    let child = start(&hub, home.path()).spawn().unwrap();
    wait_for(|| !hub.fetched("model.safetensors").is_empty());
    let (found, lines) = fetch(&hub.client(&home.path().join("hub")), "owner/roberta");
    found.unwrap();
    assert_eq!(lines, ["waiting model.safetensors"]);
    assert!(said(child).contains("found "));
}

/// A file that cannot grow as far as it must, as on a full disk: the system's limit on the size of files stands in.
#[cfg(unix)]
#[test]
fn a_write_that_fails_is_an_error_and_the_rest_can_follow() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    // 500 blocks of 512 or 1024 bytes; without the signal that would kill the process, writing fails.
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 500; exec \"$0\" \"$@\""])
        .arg(program);
    let plain = start(&hub, home.path());
    command
        .args(plain.get_args())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let said = said(command.spawn().unwrap());
    assert!(
        said.contains("failed cannot write") && said.contains("incomplete"),
        "{said}"
    );
    let cache = home.path().join("hub");
    let blobs = cache.join("models--owner--roberta/blobs");
    assert!(!blobs.join(digest(&noise(SIZE), true)).exists());
    let found = fetch(&hub.client(&cache), "owner/roberta").0.unwrap();
    assert_eq!(
        fs::read(found.path.join("model.safetensors")).unwrap(),
        noise(SIZE)
    );
    let resumed = hub.fetched("model.safetensors")[1];
    assert!(resumed > 0 && resumed < SIZE, "{resumed}");
}
