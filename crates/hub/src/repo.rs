//! From a name to a snapshot folder: look up the commit, choose the files, fetch what is missing.
//!
//! All files of a snapshot are of one commit, which is looked up once. Without a network the cache's own idea of a
//! revision has to do, and a commit hash that was fetched once needs no network ever again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use ureq::http::Method;

use crate::cache::{RepoCache, io_error};
use crate::digest::sha256_of;
use crate::error::HubError;
use crate::event::{Event, Hear};
use crate::fetch::Fetch;
use crate::glue;
use crate::http::{Ask, Client, Failure, passing};
use crate::name::{RepoName, is_commit};
use crate::select::{ModelFiles, Split, shards, split_files};
use crate::settings::Settings;
use crate::status::refused;

/// Bytes of a listing at most.
const LARGEST_LISTING: u64 = 64 << 20;

/// The hub and the cache of what came from it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
}

/// A folder laid out as the repository is, with at least the files that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder.
    pub path: PathBuf,
    /// The commit that it is of.
    pub commit: String,
}

/// What is needed of a repository.
#[derive(Clone, Copy)]
enum Need<'a> {
    Model,
    Splits(&'a [Split<'a>]),
}

/// A snapshot in the cache that has all that cannot be done without.
struct Cached {
    commit: String,
    /// Whether there can be nothing more on the hub that matters.
    whole: bool,
}

/// The commit of a revision and its files.
struct Listing {
    commit: String,
    files: BTreeSet<String>,
}

impl Hub {
    /// # Errors
    /// When the certificates that the settings name cannot be read.
    pub fn new(settings: Settings) -> Result<Self, HubError> {
        Ok(Self {
            client: Client::new(settings)?,
        })
    }

    /// A model's configuration, weights and tokenizer.
    ///
    /// # Errors
    /// When the hub or the cache does not have it, or it cannot be fetched whole.
    pub fn model(&self, name: &RepoName, hear: Hear<'_>) -> Result<Snapshot, HubError> {
        self.get(name, Need::Model, hear)
    }

    /// The files of some splits.
    ///
    /// # Errors
    /// When the hub or the cache does not have them, or they cannot be fetched whole.
    pub fn data(
        &self,
        name: &RepoName,
        splits: &[Split<'_>],
        hear: Hear<'_>,
    ) -> Result<Snapshot, HubError> {
        self.get(name, Need::Splits(splits), hear)
    }

    fn get(&self, name: &RepoName, need: Need<'_>, hear: Hear<'_>) -> Result<Snapshot, HubError> {
        let settings = self.client.settings();
        let cache = RepoCache::new(settings, name);
        let snapshot = |commit: String| Snapshot {
            path: cache.snapshot(&commit),
            commit,
        };
        let cached = match (cached(&cache, name, need)?, settings.offline) {
            (Ok(found), true) => return Ok(snapshot(found.commit)),
            // A commit never changes: once fetched, there is nothing to ask.
            (Ok(found), false) if found.whole && name.commit().is_some() => {
                return Ok(snapshot(found.commit));
            }
            (Ok(found), false) => Some(found.commit),
            (Err(_), false) => None,
            (Err(lacks), true) => {
                return Err(HubError::Offline {
                    kind: name.kind(),
                    repo: name.to_string(),
                    cache: settings.cache.clone(),
                    lacks,
                });
            }
        };
        // With a copy to fall back on there is no need to insist.
        let attempts = if cached.is_some() {
            1
        } else {
            settings.attempts
        };
        match (self.listing(name, attempts, hear), cached) {
            (Ok(listing), _) => {
                self.complete(&cache, name, need, &listing, hear)?;
                cache.remember(name, &listing.commit)?;
                Ok(snapshot(listing.commit))
            }
            (Err(HubError::Unreachable { reason, .. }), Some(commit)) => {
                hear(&Event::Note(&format!(
                    "{} is out of reach ({reason}); taking {name} as it is in the cache, commit {}",
                    settings.endpoint,
                    &commit[..12]
                )));
                Ok(snapshot(commit))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Asks which commit a revision is and which files it has.
    fn listing(&self, name: &RepoName, attempts: u32, hear: Hear<'_>) -> Result<Listing, HubError> {
        let settings = self.client.settings();
        let what = format!("the list of files of {name}");
        let url = name.listing_url(&settings.endpoint);
        let ask = Ask {
            method: &Method::GET,
            url: &url,
            from: 0,
            what: &what,
        };
        let text = self.client.persist(&what, attempts, hear, |_| {
            let answer = self.client.send(ask)?.response;
            if !answer.status().is_success() {
                let failure = passing(&answer);
                return Err(
                    failure.unwrap_or_else(|| refused(settings, name, None, &answer).into())
                );
            }
            let body = answer.into_body().into_with_config();
            let read = body.limit(LARGEST_LISTING).read_to_vec();
            read.map_err(|error| Failure::passing(error.to_string()))
        })?;
        read_listing(&text).map_err(|problem| HubError::Answer {
            place: settings.endpoint.clone(),
            what,
            problem,
        })
    }

    /// Fetches what a snapshot lacks.
    fn complete(
        &self,
        cache: &RepoCache,
        name: &RepoName,
        need: Need<'_>,
        listing: &Listing,
        hear: Hear<'_>,
    ) -> Result<(), HubError> {
        let fetch = Fetch {
            client: &self.client,
            cache,
            name,
            commit: &listing.commit,
        };
        let lacks = |lacks: &str, way_out| HubError::Lacks {
            kind: name.kind(),
            repo: name.to_string(),
            lacks: lacks.to_owned(),
            way_out,
        };
        match need {
            Need::Model => {
                let model = ModelFiles::choose(|file| listing.files.contains(file))
                    .map_err(|what| lacks(what, "it is no checkpoint that can be read here"))?;
                for file in &model.small {
                    fetch.file(file, hear)?;
                }
                let weights = fetch.file(model.weights, hear)?;
                if model.is_index {
                    let shards = shards(&weights).map_err(|problem| HubError::Answer {
                        place: name.to_string(),
                        what: model.weights.to_owned(),
                        problem,
                    })?;
                    for shard in shards {
                        fetch.file(&shard, hear)?;
                    }
                }
            }
            Need::Splits(splits) => {
                for split in splits {
                    let files = listing.files.iter().map(String::as_str);
                    let what = format!("{}/{}-00000-of-00001.parquet", split.task, split.name);
                    let way_out =
                        "check task and split, or give a data set in the form of nyu-mll/glue";
                    let files = split_files(files, *split).ok_or_else(|| lacks(&what, way_out))?;
                    for file in files {
                        fetch.file(&file, hear)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the cache has of that, or what it lacks.
fn cached(
    cache: &RepoCache,
    name: &RepoName,
    need: Need<'_>,
) -> Result<Result<Cached, String>, HubError> {
    let Some(commit) = cache.commit(name) else {
        return Ok(Err(format!("revision {}", name.revision())));
    };
    let folder = cache.snapshot(&commit);
    let there = |file: &str| folder.join(file).is_file();
    let whole = match need {
        Need::Model => {
            let model = match ModelFiles::choose(there) {
                Ok(model) => model,
                Err(lacks) => return Ok(Err(lacks.to_owned())),
            };
            if model.is_index {
                let shards = match shards(&folder.join(model.weights)) {
                    Ok(shards) => shards,
                    Err(problem) => return Ok(Err(format!("{}: {problem}", model.weights))),
                };
                if let Some(lacks) = shards.into_iter().find(|shard| !there(shard)) {
                    return Ok(Err(lacks));
                }
            }
            model.has_tokenizer()
        }
        Need::Splits(splits) => {
            for split in splits {
                if let Some(lacks) = missing(&folder, name, *split)? {
                    return Ok(Err(lacks));
                }
            }
            true
        }
    };
    Ok(Ok(Cached { commit, whole }))
}

/// What a snapshot lacks of a split, or has in a form that nobody knows.
fn missing(folder: &Path, name: &RepoName, split: Split<'_>) -> Result<Option<String>, HubError> {
    let entries = fs::read_dir(folder.join(split.task))
        .into_iter()
        .flatten()
        .flatten();
    let there: Vec<String> = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| format!("{}/{}", split.task, entry.file_name().to_string_lossy()))
        .collect();
    let Some(files) = split_files(there.iter().map(String::as_str), split) else {
        return Ok(Some(format!(
            "{}/{}-00000-of-00001.parquet",
            split.task, split.name
        )));
    };
    for file in files {
        let path = folder.join(&file);
        if let Some(known) = glue::known(name.id(), &file)
            && sha256_of(&path).map_err(io_error("read", &path))? != known.sha256
        {
            return Ok(Some(format!("{file} with the known content")));
        }
    }
    Ok(None)
}

fn read_listing(text: &[u8]) -> Result<Listing, String> {
    #[derive(Deserialize)]
    struct Raw {
        sha: String,
        #[serde(default)]
        siblings: Vec<Sibling>,
    }
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
    }
    let raw: Raw = serde_json::from_slice(text).map_err(|error| format!("no list ({error})"))?;
    if !is_commit(&raw.sha) {
        return Err("a list without a commit hash".to_owned());
    }
    Ok(Listing {
        commit: raw.sha,
        files: raw
            .siblings
            .into_iter()
            .map(|file| file.rfilename)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_needs_a_commit_hash() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let text =
            format!(r#"{{"sha": "{commit}", "siblings": [{{"rfilename": "a"}}], "more": 1}}"#);
        let listing = read_listing(text.as_bytes()).unwrap();
        assert_eq!((listing.commit.as_str(), listing.files.len()), (commit, 1));
        for wrong in [
            "",
            "<html>",
            "{}",
            r#"{"sha": "../../x"}"#,
            r#"{"sha": "main"}"#,
        ] {
            assert!(read_listing(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
