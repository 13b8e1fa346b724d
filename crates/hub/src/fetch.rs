//! One file from the hub into the cache: asked for its digest, fetched or gone on with, verified, and only then named.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ureq::http::Method;

use crate::cache::{RepoCache, io_error};
use crate::digest::{Digest, sha256_of};
use crate::error::HubError;
use crate::event::{Event, Hear};
use crate::glue;
use crate::http::{Answer, Ask, Client, Failure, header, passing};
use crate::name::RepoName;
use crate::status::refused;
use crate::url::{origin, same_origin};

/// Bytes read at a time.
const PIECE: usize = 1 << 18;

/// Fetches files of one commit.
pub(crate) struct Fetch<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a RepoCache,
    pub(crate) name: &'a RepoName,
    pub(crate) commit: &'a str,
}

/// What the hub says of a file.
struct Promise {
    digest: Digest,
    size: Option<u64>,
}

impl Fetch<'_> {
    /// The file's place in the snapshot, after it was fetched if it was not there.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not what it should be. Nothing wrong is left in the cache.
    pub(crate) fn file(&self, file: &str, hear: Hear<'_>) -> Result<PathBuf, HubError> {
        let known = glue::known(self.name.id(), file);
        let there = self.cache.snapshot(self.commit).join(file);
        if there.is_file() {
            match known {
                Some(known) if sha256(&there)? != known.sha256 => {}
                _ => return Ok(there),
            }
        }
        let promise = self.promise(file, hear)?;
        if let (Some(known), Digest::Sha256(hex)) = (known, &promise.digest)
            && hex != known.sha256
        {
            return Err(self.not_glue(file, known.sha256, hex.clone()));
        }
        let _lock = self.cache.lock(&promise.digest, file, hear)?;
        let new = !self.is_sound(&promise, known.is_some())?;
        if new {
            self.fetch(file, &promise, hear)?;
        }
        if let Some(known) = known {
            let found = sha256(&self.cache.blob(&promise.digest))?;
            if found != known.sha256 {
                return Err(self.not_glue(file, known.sha256, found));
            }
        }
        self.cache.point(self.commit, file, &promise.digest, new)
    }

    /// Whether the cache has the blob: with the right size, and where that matters with the right content. One that
    /// another program damaged is removed.
    fn is_sound(&self, promise: &Promise, content: bool) -> Result<bool, HubError> {
        let blob = self.cache.blob(&promise.digest);
        let Ok(about) = blob.metadata() else {
            return Ok(false);
        };
        let sized = promise.size.is_none_or(|size| size == about.len());
        if sized && (!content || self.digits(&promise.digest, &blob)? == promise.digest.hex()) {
            return Ok(true);
        }
        fs::remove_file(&blob).map_err(io_error("remove", &blob))?;
        Ok(false)
    }

    /// Asks for digest and size.
    fn promise(&self, file: &str, hear: Hear<'_>) -> Result<Promise, HubError> {
        let client = self.client;
        let endpoint = &client.settings().endpoint;
        let url = self.name.file_url(endpoint, self.commit, file);
        let what = format!("`{file}` of {}", self.name);
        let ask = Ask {
            method: &Method::HEAD,
            url: &url,
            from: 0,
            what: &what,
        };
        client.persist(&what, client.settings().attempts, hear, |_| {
            let answer = client.send(ask)?;
            if !answer.response.status().is_success() && !answer.response.status().is_redirection()
            {
                return Err(self.failed(file, &answer));
            }
            let etag = header(&answer.response, "x-linked-etag")
                .or_else(|| header(&answer.response, "etag"));
            let digest = etag
                .and_then(Digest::from_etag)
                .ok_or_else(|| HubError::Answer {
                    place: endpoint.clone(),
                    what: what.clone(),
                    problem: format!("no digest (its ETag is {})", etag.unwrap_or("missing")),
                })?;
            let size = header(&answer.response, "x-linked-size").or_else(|| {
                let own = answer.response.status().is_success();
                own.then(|| header(&answer.response, "content-length"))
                    .flatten()
            });
            let size = size.and_then(|size| size.parse().ok());
            Ok(Promise { digest, size })
        })
    }

    /// Fetches until the blob is there or hope is lost.
    fn fetch(&self, file: &str, promise: &Promise, hear: Hear<'_>) -> Result<(), HubError> {
        let settings = self.client.settings();
        let partial = self.cache.partial(&promise.digest);
        if let Some(folder) = partial.parent() {
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        let done = partial.metadata().map_or(0, |about| about.len());
        hear(&Event::Started {
            repo: self.name.id(),
            file,
            done,
            size: promise.size,
        });
        let what = format!("`{file}` of {}", self.name);
        let mut furthest = done;
        let mut spoilt = false;
        self.client.persist(&what, settings.attempts, hear, |hear| {
            let grown = self.grow(file, promise, &partial, &mut furthest, hear)?;
            let found = self.digits(&promise.digest, &partial)?;
            if found == promise.digest.hex() {
                let size = grown.metadata().map_or(0, |about| about.len());
                self.cache.publish(&grown, &promise.digest)?;
                hear(&Event::Finished { file, size });
                return Ok(());
            }
            drop(grown);
            remove(&partial)?;
            furthest = 0;
            if std::mem::replace(&mut spoilt, true) {
                return Err(HubError::WrongBytes {
                    repo: self.name.to_string(),
                    file: file.to_owned(),
                    expected: promise.digest.to_string(),
                    found,
                }
                .into());
            }
            Err(Failure::passing(format!("{what} arrived damaged")))
        })
    }

    /// Lets the partial file grow to its full size with one request.
    fn grow(
        &self,
        file: &str,
        promise: &Promise,
        partial: &Path,
        furthest: &mut u64,
        hear: Hear<'_>,
    ) -> Result<File, Failure> {
        let mut target = open(partial)?;
        let mut have = target.metadata().map_err(io_error("read", partial))?.len();
        if promise.size.is_some_and(|size| have > size) {
            (target, have) = (anew(partial)?, 0);
        }
        if promise.size == Some(have) {
            return Ok(target); // all there already, or nothing to come
        }
        let url = self
            .name
            .file_url(&self.client.settings().endpoint, self.commit, file);
        let answer = self.client.send(Ask {
            method: &Method::GET,
            url: &url,
            from: have,
            what: file,
        })?;
        match answer.response.status().as_u16() {
            206 if range_start(&answer) == Some(have) => {}
            200 if have == 0 => {}
            // The server does not know ranges: all of it comes again.
            200 => (target, have) = (anew(partial)?, 0),
            206 | 416 => {
                remove(partial)?;
                return Err(Failure::passing(
                    "the server does not go on where the download stopped",
                ));
            }
            _ => return Err(self.failed(file, &answer)),
        }
        target
            .seek(SeekFrom::Start(have))
            .map_err(io_error("write", partial))?;
        let outcome = self.pour(answer, &mut target, &mut have, promise.size, partial, hear);
        let progress = have > *furthest;
        *furthest = have.max(*furthest);
        match outcome {
            Ok(()) => Ok(target),
            Err(Failure::Passing { reason, pause, .. }) => Err(Failure::Passing {
                reason,
                pause,
                progress,
            }),
            Err(other) => Err(other),
        }
    }

    /// Writes what arrives. What is missing or too much at the end is a failure that may pass.
    fn pour(
        &self,
        answer: Answer,
        target: &mut File,
        have: &mut u64,
        size: Option<u64>,
        partial: &Path,
        hear: Hear<'_>,
    ) -> Result<(), Failure> {
        let mut body = answer.response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    let after = size.map_or(String::new(), |size| format!(" of {size}"));
                    return Err(Failure::passing(format!(
                        "the connection broke after {have}{after} bytes ({error})"
                    )));
                }
            };
            if size.is_some_and(|size| *have + read as u64 > size) {
                remove(partial)?;
                return Err(Failure::passing("more bytes arrive than the hub promised"));
            }
            target
                .write_all(&piece[..read])
                .map_err(io_error("write", partial))?;
            *have += read as u64;
            hear(&Event::Progress { done: *have, size });
        }
        match size {
            Some(size) if *have < size => Err(Failure::passing(format!(
                "the connection ended after {have} of {size} bytes"
            ))),
            _ => Ok(()),
        }
    }

    fn failed(&self, file: &str, answer: &Answer) -> Failure {
        let response = &answer.response;
        if let Some(failure) = passing(response) {
            return failure;
        }
        let settings = self.client.settings();
        // Only the hub can say what it has. To another host it sends anew with each attempt, with fresh permissions.
        let foreign = !same_origin(&answer.url, &settings.endpoint);
        if foreign && header(response, "x-error-code").is_none() {
            let host = origin(&answer.url).unwrap_or_default();
            return Failure::passing(format!("{host} answers {}", response.status()));
        }
        refused(settings, self.name, Some(file), response).into()
    }

    fn digits(&self, digest: &Digest, path: &Path) -> Result<String, HubError> {
        digest.hex_of(path).map_err(io_error("read", path))
    }

    fn not_glue(&self, file: &str, expected: &'static str, found: String) -> HubError {
        HubError::NotGlue {
            repo: self.name.to_string(),
            file: file.to_owned(),
            expected,
            found,
        }
    }
}

fn sha256(path: &Path) -> Result<String, HubError> {
    sha256_of(path).map_err(io_error("read", path))
}

/// Where a part begins, from `bytes 5-9/10`.
fn range_start(answer: &Answer) -> Option<u64> {
    let range = header(&answer.response, "content-range")?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// Opens a file to go on with; a file of another process keeps its content.
fn open(partial: &Path) -> Result<File, HubError> {
    let options = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(partial);
    options.map_err(io_error("write", partial))
}

/// A new, empty file in the place of one that is of no use.
fn anew(partial: &Path) -> Result<File, HubError> {
    remove(partial)?;
    open(partial)
}

fn remove(partial: &Path) -> Result<(), HubError> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", partial)(error))
        }
        _ => Ok(()),
    }
}
