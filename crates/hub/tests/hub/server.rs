//! A hub on loopback: a real HTTP server that answers as huggingface.co does, and misbehaves on request.
//!
//! Two listeners: the hub itself, and the host to which it redirects for large files. They differ in host name and
//! port, as the hub and its content network do. Every request is written down.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lowburn_hub::{Event, Hub, HubError, Kind, RepoName, Settings, Snapshot, Split, Token};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of every fake repository.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// That status, with these headers and no content.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the content.
    Cut(usize),
    /// Content of the right length that is another.
    Wrong,
    /// All of the content, whatever range was asked for, ending after so many bytes.
    NoRange(usize),
    /// Half of the content, then silence.
    Stall(Duration),
    /// So many bytes at a time, with a pause before each.
    Drip(usize, Duration),
    /// More bytes than promised, with no length said.
    TooMuch,
    /// Anything but the promised entity tag.
    Etag(&'static str),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Whether it came to the other host.
    pub(crate) cdn: bool,
    /// HEAD or GET.
    pub(crate) method: String,
    /// The path.
    pub(crate) path: String,
    /// First byte asked for, or 0.
    pub(crate) from: usize,
    /// The header Authorization.
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    /// Path in the repository -> content and whether it is a large file.
    files: BTreeMap<String, (Vec<u8>, bool)>,
    repo: String,
    /// Old name of the repository.
    old: Option<String>,
    data: bool,
    /// `list`, `HEAD file`, `GET file` -> what goes wrong, one after the other.
    troubles: HashMap<String, VecDeque<Trouble>>,
    seen: Vec<Seen>,
    cdn: String,
    listing: Option<String>,
}

/// The server; its threads end with the process.
pub(crate) struct FakeHub {
    /// Its address, for `HF_ENDPOINT`.
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl FakeHub {
    /// A hub with one model.
    pub(crate) fn model(repo: &str) -> Self {
        Self::start(repo, false)
    }

    /// A hub with one data set.
    pub(crate) fn data(repo: &str) -> Self {
        Self::start(repo, true)
    }

    fn start(repo: &str, data: bool) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let (hub, cdn) = (listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            repo: repo.to_owned(),
            data,
            cdn: format!("http://localhost:{}", port(&cdn)),
            ..State::default()
        }));
        let endpoint = format!("http://127.0.0.1:{}", port(&hub));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    // A client that hangs up is no failure of the server's.
                    thread::spawn(move || drop(serve(stream, &state, is_cdn)));
                }
            });
        }
        Self { endpoint, state }
    }

    /// Adds a small file, which git keeps itself.
    pub(crate) fn small(self, path: &str, content: &[u8]) -> Self {
        self.put(path, content, false)
    }

    /// Adds a large file, which another host gives out.
    pub(crate) fn large(self, path: &str, content: &[u8]) -> Self {
        self.put(path, content, true)
    }

    fn put(self, path: &str, content: &[u8], large: bool) -> Self {
        let mut state = self.state.lock().unwrap();
        state
            .files
            .insert(path.to_owned(), (content.to_vec(), large));
        drop(state);
        self
    }

    /// The repository was renamed from that.
    pub(crate) fn renamed_from(self, old: &str) -> Self {
        self.state.lock().unwrap().old = Some(old.to_owned());
        self
    }

    /// Answers the question for files with that text.
    pub(crate) fn listing(self, text: &str) -> Self {
        self.state.lock().unwrap().listing = Some(text.to_owned());
        self
    }

    /// What goes wrong with the next requests of that kind: `list`, `HEAD file` or `GET file`.
    pub(crate) fn trouble(&self, request: &str, troubles: &[Trouble]) {
        let mut state = self.state.lock().unwrap();
        state
            .troubles
            .insert(request.to_owned(), troubles.to_vec().into());
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// First bytes asked for by the requests for a file's content, in order; those to the hub that were redirected do
    /// not count.
    pub(crate) fn fetched(&self, file: &str) -> Vec<usize> {
        let large = self
            .state
            .lock()
            .unwrap()
            .files
            .get(file)
            .is_some_and(|(_, large)| *large);
        let ours =
            |seen: &Seen| seen.method == "GET" && seen.path.ends_with(file) && seen.cdn == large;
        self.seen()
            .iter()
            .filter(|seen| ours(seen))
            .map(|seen| seen.from)
            .collect()
    }

    /// Settings for it that do not wait long.
    pub(crate) fn settings(&self, cache: &Path) -> Settings {
        let mut settings = Settings::new(cache.to_owned());
        settings.endpoint.clone_from(&self.endpoint);
        settings.silence = Duration::from_secs(5);
        settings.pause = Duration::from_millis(5);
        settings.proxy = false;
        settings
    }

    /// A client for it.
    pub(crate) fn client(&self, cache: &Path) -> Hub {
        Hub::new(self.settings(cache)).unwrap()
    }
}

/// A model by name, with the lines that a user would see.
pub(crate) fn fetch(hub: &Hub, name: &str) -> (Result<Snapshot, HubError>, Vec<String>) {
    let name = RepoName::parse(name, Kind::Model).unwrap();
    let mut lines = Vec::new();
    let outcome = hub.model(&name, &mut |event| lines.extend(line(event)));
    (outcome, lines)
}

/// A data set by name.
pub(crate) fn fetch_data(
    hub: &Hub,
    name: &str,
    splits: &[(&str, &str)],
) -> Result<Snapshot, HubError> {
    let name = RepoName::parse(name, Kind::Data).unwrap();
    let splits: Vec<Split<'_>> = splits
        .iter()
        .map(|(task, name)| Split { task, name })
        .collect();
    hub.data(&name, &splits, &mut |_| {})
}

fn line(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Started { file, done, .. } => Some(format!("started {file} at {done}")),
        Event::Finished { file, size } => Some(format!("finished {file} {size}")),
        Event::Waiting { file } => Some(format!("waiting {file}")),
        Event::Retry { reason, .. } => Some(format!("retry {reason}")),
        Event::Note(text) => Some((*text).to_owned()),
        _ => None,
    }
}

/// A token.
pub(crate) fn token(text: &str) -> Option<Token> {
    Token::new(text).unwrap()
}

/// Bytes without a pattern that a shift could hide.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(next).collect()
}

/// The file's digest as the hub would say it.
pub(crate) fn digest(content: &[u8], large: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if large {
        return hex(&Sha256::digest(content));
    }
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", content.len()));
    hasher.update(content);
    hex(&hasher.finalize())
}

fn serve(stream: TcpStream, state: &Mutex<State>, cdn: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split(' ');
    let mut seen = Seen {
        cdn,
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        from: 0,
        authorization: None,
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim();
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "authorization" => seen.authorization = Some(value.to_owned()),
            "range" => {
                let from = value.trim_start_matches("bytes=").trim_end_matches('-');
                seen.from = from.parse().expect("a range");
            }
            _ => {}
        }
    }
    state.lock().unwrap().seen.push(seen.clone());
    answer(stream, state, &seen)
}

fn answer(mut out: TcpStream, state: &Mutex<State>, seen: &Seen) -> std::io::Result<()> {
    let mut state = state.lock().unwrap();
    let old = state.old.as_ref().and_then(|old| {
        let rest = seen.path.strip_prefix("/api/models").unwrap_or(&seen.path);
        Some((old, rest.strip_prefix('/')?.strip_prefix(old.as_str())?))
    });
    if let Some((old, rest)) = old.filter(|(_, rest)| rest.starts_with('/')) {
        let before = &seen.path[..seen.path.len() - rest.len() - old.len()];
        let place = format!("{before}{}{rest}", state.repo);
        return head(
            &mut out,
            307,
            &[("Location", place), ("Content-Length", "0".to_owned())],
        );
    }
    let plural = if state.data { "datasets" } else { "models" };
    let prefix = if state.data { "/datasets" } else { "" };
    let listing = format!("/api/{plural}/{}/revision/", state.repo);
    let files = format!("{prefix}/{}/resolve/{COMMIT}/", state.repo);
    let (kind, file) = if seen.path.starts_with(&listing) {
        ("list".to_owned(), None)
    } else if let Some(file) = seen
        .path
        .strip_prefix(&files)
        .or(seen.path.strip_prefix("/cdn/"))
    {
        (format!("{} {file}", seen.method), Some(file.to_owned()))
    } else {
        let code = ("X-Error-Code", "RepoNotFound".to_owned());
        return head(&mut out, 401, &[code, ("Content-Length", "0".to_owned())]);
    };
    let large = file
        .as_ref()
        .and_then(|file| state.files.get(file))
        .is_some_and(|(_, large)| *large);
    // What goes wrong with a large file's content goes wrong where the content is.
    let here = kind.starts_with("GET ") && large != seen.cdn;
    let trouble = state
        .troubles
        .get_mut(&kind)
        .filter(|_| !here)
        .and_then(VecDeque::pop_front);
    if let Some(Trouble::Status(status, headers)) = &trouble {
        let mut headers = headers.clone();
        headers.push(("Content-Length", "0".to_owned()));
        return head(&mut out, *status, &headers);
    }
    let Some(file) = file else {
        let siblings: Vec<String> = state
            .files
            .keys()
            .map(|name| format!(r#"{{"rfilename": "{name}"}}"#))
            .collect();
        let usual = format!(
            r#"{{"id": "x", "sha": "{COMMIT}", "siblings": [{}]}}"#,
            siblings.join(", ")
        );
        let text = state.listing.clone().unwrap_or(usual);
        head(&mut out, 200, &[("Content-Length", text.len().to_string())])?;
        return out.write_all(text.as_bytes());
    };
    let commit = ("X-Repo-Commit", COMMIT.to_owned());
    let Some((content, large)) = state.files.get(&file).cloned() else {
        let code = ("X-Error-Code", "EntryNotFound".to_owned());
        return head(
            &mut out,
            404,
            &[code, commit, ("Content-Length", "0".to_owned())],
        );
    };
    let cdn = state.cdn.clone();
    drop(state);
    let tag = match &trouble {
        Some(Trouble::Etag(tag)) => format!("\"{tag}\""),
        _ => format!("\"{}\"", digest(&content, large)),
    };
    if large && !seen.cdn {
        let headers = [
            ("Location", format!("{cdn}/cdn/{file}")),
            ("X-Linked-Etag", tag),
            ("X-Linked-Size", content.len().to_string()),
            commit,
            ("ETag", "\"of-the-redirect\"".to_owned()),
            ("Content-Length", "0".to_owned()),
        ];
        return head(&mut out, 302, &headers);
    }
    body(out, seen, &content, &tag, trouble)
}

fn body(
    mut out: TcpStream,
    seen: &Seen,
    content: &[u8],
    tag: &str,
    trouble: Option<Trouble>,
) -> std::io::Result<()> {
    let whole = content.len();
    let from = match trouble {
        Some(Trouble::NoRange(_) | Trouble::TooMuch) => 0,
        _ => seen.from,
    };
    let mut headers = vec![
        ("ETag", tag.to_owned()),
        ("X-Repo-Commit", COMMIT.to_owned()),
    ];
    if from > 0 && from >= whole || (whole == 0 && seen.from > 0) {
        headers.push(("Content-Range", format!("bytes */{whole}")));
        return head(&mut out, 416, &headers);
    }
    let rest = &content[from..];
    if !matches!(trouble, Some(Trouble::TooMuch)) {
        headers.push(("Content-Length", rest.len().to_string()));
    }
    if from > 0 {
        headers.push((
            "Content-Range",
            format!("bytes {from}-{}/{whole}", whole - 1),
        ));
    }
    head(&mut out, if from > 0 { 206 } else { 200 }, &headers)?;
    if seen.method == "HEAD" {
        return Ok(());
    }
    match trouble {
        None | Some(Trouble::Status(..) | Trouble::Etag(_)) => out.write_all(rest),
        Some(Trouble::Cut(bytes) | Trouble::NoRange(bytes)) => {
            out.write_all(&rest[..bytes.min(rest.len())])
        }
        Some(Trouble::Wrong) => {
            out.write_all(&rest.iter().map(|byte| byte ^ 1).collect::<Vec<_>>())
        }
        Some(Trouble::Stall(silence)) => {
            out.write_all(&rest[..rest.len() / 2])?;
            thread::sleep(silence);
            Ok(())
        }
        Some(Trouble::Drip(bytes, pause)) => rest.chunks(bytes).try_for_each(|piece| {
            thread::sleep(pause);
            out.write_all(piece)
        }),
        Some(Trouble::TooMuch) => out.write_all(&[content, b"more"].concat()),
    }
}

fn head(out: &mut TcpStream, status: u16, headers: &[(&str, String)]) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} So\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    out.write_all((text + "\r\n").as_bytes())
}
