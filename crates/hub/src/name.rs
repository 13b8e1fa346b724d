//! Names of repositories: `name` or `owner/name`, with an optional `@revision`.
//!
//! A name becomes part of URLs and of paths in the cache, so only what the hub itself allows is taken: nothing here
//! can lead out of the cache folder.

use std::fmt;

use crate::error::Kind;

/// A repository on the hub and the revision that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoName {
    kind: Kind,
    id: String,
    revision: String,
}

impl RepoName {
    /// What is meant without `@revision`.
    pub const DEFAULT_REVISION: &'static str = "main";

    /// Reads `name`, `owner/name` or either with `@revision`: a branch, a tag, `refs/pr/1` or a commit. `None` for
    /// everything that cannot be a name on the hub, such as a path.
    #[must_use]
    pub fn parse(argument: &str, kind: Kind) -> Option<Self> {
        let (id, revision) = match argument.split_once('@') {
            Some((id, revision)) => (id, revision),
            None => (argument, Self::DEFAULT_REVISION),
        };
        let parts: Vec<&str> = id.split('/').collect();
        let named = parts.len() <= 2 && parts.iter().all(|part| is_name(part));
        (named && is_revision(revision)).then(|| Self {
            kind,
            id: id.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// Model or data.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `roberta-base` or `nyu-mll/glue`, without the revision.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision that is wanted.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The revision if it is a whole commit hash, which never means anything else later.
    pub(crate) fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(self.revision.as_str())
    }

    /// The repository's folder in the cache: `datasets--nyu-mll--glue`.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}", self.plural(), self.id.replace('/', "--"))
    }

    /// Where the hub says which commit a revision is and which files it has.
    pub(crate) fn listing_url(&self, endpoint: &str) -> String {
        let (plural, id) = (self.plural(), &self.id);
        let revision = quoted(&self.revision, false);
        format!("{endpoint}/api/{plural}/{id}/revision/{revision}")
    }

    /// Where a file of a commit lies.
    pub(crate) fn file_url(&self, endpoint: &str, commit: &str, file: &str) -> String {
        let prefix = match self.kind {
            Kind::Model => "",
            Kind::Data => "datasets/",
        };
        format!(
            "{endpoint}/{prefix}{}/resolve/{commit}/{}",
            self.id,
            quoted(file, true)
        )
    }

    fn plural(&self) -> &'static str {
        match self.kind {
            Kind::Model => "models",
            Kind::Data => "datasets",
        }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision != Self::DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// A whole commit hash, or any other SHA-1 in hexadecimal.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A path inside a repository that is safe below a folder: no `..`, nothing absolute, no odd characters.
pub(crate) fn is_plain_path(path: &str) -> bool {
    path.split('/').all(|part| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
    })
}

/// The hub's rule: letters, digits, `-`, `_`, `.`; no `--` (which the cache uses between owner and name) and no `..`.
fn is_name(part: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.len() <= 96
        && part.starts_with(word)
        && part.ends_with(word)
        && part.chars().all(|c| word(c) || c == '-' || c == '.')
        && !part.contains("--")
        && !part.contains("..")
}

fn is_revision(revision: &str) -> bool {
    revision.len() <= 255 && is_plain_path(revision)
}

/// Percent-encoding; `/` stays where it separates folders.
fn quoted(text: &str, keep_slashes: bool) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (keep_slashes && byte == b'/') {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_owner_or_none_and_a_revision_or_main() {
        let name = RepoName::parse("roberta-base", Kind::Model).unwrap();
        assert_eq!((name.id(), name.revision()), ("roberta-base", "main"));
        assert_eq!(name.folder(), "models--roberta-base");
        assert_eq!(name.to_string(), "roberta-base");
        let name = RepoName::parse("nyu-mll/glue@refs/pr/3", Kind::Data).unwrap();
        assert_eq!((name.id(), name.revision()), ("nyu-mll/glue", "refs/pr/3"));
        assert_eq!(name.folder(), "datasets--nyu-mll--glue");
        assert_eq!(name.to_string(), "nyu-mll/glue@refs/pr/3");
        assert_eq!(
            name.listing_url("http://hub"),
            "http://hub/api/datasets/nyu-mll/glue/revision/refs%2Fpr%2F3"
        );
        assert_eq!(
            name.file_url("http://hub", "0f", "rte/a+b.parquet"),
            "http://hub/datasets/nyu-mll/glue/resolve/0f/rte/a%2Bb.parquet"
        );
    }

    #[test]
    fn only_whole_hashes_are_commits() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let at = |revision: &str| {
            let name = RepoName::parse(&format!("a/b@{revision}"), Kind::Model).unwrap();
            name.commit().map(str::to_owned)
        };
        assert_eq!(at(hash).as_deref(), Some(hash));
        assert_eq!(at(&hash[..7]), None);
        assert_eq!(at("v1.0"), None);
    }

    #[test]
    fn what_could_lead_out_of_the_cache_is_no_name() {
        for argument in [
            "", "/", "a/", "/a", "a/b/c", "../a", "a/..", "a--b", "a..b", "-a", "a-", ".a", "a b",
            "a\\b", "C:", "a@", "a@..", "a@x/../y", "a@/x", "a@x//y", "a@.x", "a@b@c", "ä",
            "a@x y",
        ] {
            assert_eq!(RepoName::parse(argument, Kind::Model), None, "{argument}");
        }
    }
}
