//! What the environment says about the hub, in the variables that Python's `huggingface_hub` reads.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HubError;

const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub and its cache are, and how to talk to it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the cache, which Python's `huggingface_hub` shares: one folder for each repository.
    pub cache: PathBuf,
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Sent to the endpoint and to nobody else.
    pub token: Option<Token>,
    /// Take what the cache holds and open no connection.
    pub offline: bool,
    /// Whether snapshots are symbolic links to blobs where the file system can; else they are the files themselves.
    pub symlinks: bool,
    /// Longest silence of the server: while connecting, before an answer, between two pieces of a file.
    pub silence: Duration,
    /// Attempts without progress before giving up.
    pub attempts: u32,
    /// Pause after the first failed attempt; it doubles with each further one.
    pub pause: Duration,
    /// File with the certificates (PEM) to trust instead of the ones built in.
    pub certificates: Option<PathBuf>,
    /// Whether `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` count.
    pub proxy: bool,
}

/// A token for the hub. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; `None` for an empty one.
    ///
    /// # Errors
    /// The offence, when it cannot be part of a header.
    pub fn new(text: &str) -> Result<Option<Self>, &'static str> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds spaces or characters outside ASCII");
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Settings {
    /// Everything as Python has it by default, with the cache in that folder.
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            endpoint: ENDPOINT.to_owned(),
            token: None,
            offline: false,
            symlinks: true,
            silence: Duration::from_secs(10),
            attempts: 5,
            pause: Duration::from_secs(1),
            certificates: None,
            proxy: true,
        }
    }

    /// Reads the environment: `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `XDG_CACHE_HOME`, `HF_ENDPOINT`,
    /// `HF_TOKEN` (or `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, `$HF_HOME/token`), `HF_HUB_DISABLE_IMPLICIT_TOKEN`,
    /// `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`), `HF_HUB_DISABLE_SYMLINKS`, `HF_HUB_DOWNLOAD_TIMEOUT`, and for
    /// certificates `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// [`HubError::Setting`] for a value that cannot be meant, and when there is no place for a cache.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let variables = Variables { get };
        let home = variables.hub_home();
        let cache = variables
            .path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or(HubError::NoHubCache)?;
        let mut settings = Self::new(cache);
        if let Some(endpoint) = variables.text("HF_ENDPOINT")? {
            settings.endpoint = checked_endpoint(&endpoint)?;
        }
        if !variables.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            settings.token = variables.token(home.as_deref())?;
        }
        settings.offline =
            variables.is_true("HF_HUB_OFFLINE") || variables.is_true("TRANSFORMERS_OFFLINE");
        settings.symlinks = !variables.is_true("HF_HUB_DISABLE_SYMLINKS");
        if let Some(seconds) = variables.text("HF_HUB_DOWNLOAD_TIMEOUT")? {
            let number = seconds.parse().ok().filter(|number| *number > 0);
            let number = number.ok_or(HubError::Setting {
                variable: "HF_HUB_DOWNLOAD_TIMEOUT",
                value: seconds,
                problem: "is no number of seconds; give 10, or unset it",
            })?;
            settings.silence = Duration::from_secs(number);
        }
        settings.certificates =
            variables.path(&["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]);
        Ok(settings)
    }
}

fn checked_endpoint(text: &str) -> Result<String, HubError> {
    let plain = text.trim_end_matches('/');
    let host = plain
        .strip_prefix("https://")
        .or_else(|| plain.strip_prefix("http://"))
        .unwrap_or_default();
    if host.is_empty() || host.contains(['?', '#', '@', ' ']) {
        return Err(HubError::Setting {
            variable: "HF_ENDPOINT",
            value: text.to_owned(),
            problem: "is no address; give one like https://huggingface.co, or unset it",
        });
    }
    Ok(plain.to_owned())
}

/// The environment, or a test's idea of it. An empty variable is as good as none.
struct Variables<F> {
    get: F,
}

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, HubError> {
        self.raw(name)
            .map(|value| {
                value.into_string().map_err(|value| HubError::Setting {
                    variable: name,
                    value: value.to_string_lossy().into_owned(),
                    problem: "is not UTF-8",
                })
            })
            .transpose()
    }

    fn is_true(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|value| {
            ["1", "ON", "YES", "TRUE"]
                .iter()
                .any(|word| value.eq_ignore_ascii_case(word))
        })
    }

    /// The first variable that is set, with `~` for the home folder.
    fn path(&self, names: &[&str]) -> Option<PathBuf> {
        let path = PathBuf::from(names.iter().find_map(|name| self.raw(name))?);
        Some(match (path.strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        })
    }

    fn home(&self) -> Option<PathBuf> {
        self.raw("HOME")
            .or_else(|| self.raw("USERPROFILE"))
            .map(PathBuf::from)
    }

    fn hub_home(&self) -> Option<PathBuf> {
        self.path(&["HF_HOME"])
            .or_else(|| Some(self.path(&["XDG_CACHE_HOME"])?.join("huggingface")))
            .or_else(|| Some(self.home()?.join(".cache").join("huggingface")))
    }

    fn token(&self, home: Option<&Path>) -> Result<Option<Token>, HubError> {
        for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            let Some(text) = self.text(variable)? else {
                continue;
            };
            // The value itself is nobody's business.
            let token = Token::new(&text).map_err(|problem| HubError::Setting {
                variable,
                value: "(not shown)".to_owned(),
                problem,
            })?;
            if token.is_some() {
                return Ok(token);
            }
        }
        let file = self
            .path(&["HF_TOKEN_PATH"])
            .or_else(|| home.map(|home| home.join("token")));
        let Some(file) = file else {
            return Ok(None);
        };
        let failed = |source| HubError::Io {
            action: "read the token in",
            path: file.clone(),
            source,
        };
        match fs::read_to_string(&file) {
            Ok(text) => Token::new(&text)
                .map_err(|problem| failed(io::Error::new(io::ErrorKind::InvalidData, problem))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        let all: Vec<(String, OsString)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        Settings::from_variables(|name| {
            let found = all.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let home = ("HOME", "/home/u");
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[home], "/home/u/.cache/huggingface/hub"),
            (&[home, ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (
                &[home, ("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/h/hub",
            ),
            (&[home, ("HF_HOME", "~/h")], "/home/u/h/hub"),
            (&[home, ("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")], "/c"),
            (&[home, ("HUGGINGFACE_HUB_CACHE", "/d")], "/d"),
            (&[home, ("HF_HOME", "")], "/home/u/.cache/huggingface/hub"),
        ];
        for (variables, expected) in cases {
            assert_eq!(read(variables).unwrap().cache, Path::new(expected));
        }
        assert!(matches!(read(&[]), Err(HubError::NoHubCache)));
    }

    #[test]
    fn offline_is_said_in_four_ways() {
        for (value, offline) in [
            ("1", true),
            ("true", true),
            ("Yes", true),
            ("ON", true),
            ("0", false),
            ("", false),
            ("2", false),
        ] {
            let settings = read(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(settings.offline, offline, "{value}");
        }
    }

    #[test]
    fn the_token_comes_from_a_variable_or_a_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        assert_eq!(read(&[home]).unwrap().token, None);
        fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let header = |variables: &[(&str, &str)]| {
            let token = read(variables).unwrap().token;
            token.map(|token| token.header())
        };
        assert_eq!(header(&[home]).as_deref(), Some("Bearer hf_file"));
        let variable = ("HF_TOKEN", " hf_variable\n");
        assert_eq!(
            header(&[home, variable]).as_deref(),
            Some("Bearer hf_variable")
        );
        let off = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(header(&[home, variable, off]), None);
        let other = folder.path().join("other");
        fs::write(&other, "hf_other").unwrap();
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(header(&[home, path]).as_deref(), Some("Bearer hf_other"));
        assert!(!format!("{:?}", read(&[home]).unwrap()).contains("hf_file"));
        let message = read(&[home, ("HF_TOKEN", "hf_a b")])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("HF_TOKEN") && !message.contains("hf_a"),
            "{message}"
        );
    }

    #[test]
    fn an_endpoint_is_an_address() {
        let endpoint =
            |value| Ok::<_, HubError>(read(&[("HOME", "/h"), ("HF_ENDPOINT", value)])?.endpoint);
        assert_eq!(endpoint("http://hub:80/x/").unwrap(), "http://hub:80/x");
        for wrong in ["hub", "ftp://hub", "https://", "https://u:p@hub"] {
            let message = endpoint(wrong).unwrap_err().to_string();
            assert!(message.contains("HF_ENDPOINT"), "{message}");
        }
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        let silence = |value| {
            let settings = read(&[("HOME", "/h"), ("HF_HUB_DOWNLOAD_TIMEOUT", value)])?;
            Ok::<_, HubError>(settings.silence)
        };
        assert_eq!(silence("30").unwrap(), Duration::from_secs(30));
        assert!(silence("0").is_err() && silence("soon").is_err());
    }
}
