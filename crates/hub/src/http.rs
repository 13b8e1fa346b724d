//! Requests to the hub: who gets the token, what is tried again, what an answer means.
//!
//! Redirects are followed here and not by the HTTP library, because two things hang on them: the token goes to the
//! endpoint's own origin and to nobody else, and the digest of a large file stands on the redirect itself.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use crate::error::HubError;
use crate::event::{Event, Hear};
use crate::settings::Settings;
use crate::url;

/// Redirects of one request at most.
const REDIRECTS: usize = 10;

/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Why a request has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed.
    Passing {
        /// What went wrong.
        reason: String,
        /// The pause that the server asks for.
        pause: Option<Duration>,
        /// Whether this attempt got further than those before.
        progress: bool,
    },
    /// It would fail again.
    Final(HubError),
}

impl Failure {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing {
            reason: reason.into(),
            pause: None,
            progress: false,
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// HEAD asks about a file, GET for it.
    pub(crate) method: &'a Method,
    /// Where.
    pub(crate) url: &'a str,
    /// First byte that is wanted.
    pub(crate) from: u64,
    /// What is asked for, in messages.
    pub(crate) what: &'a str,
}

/// An answer, and the address that gave it after all redirects.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) url: String,
}

/// Speaks HTTP with the hub and the hosts that it names.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    settings: Settings,
}

impl Client {
    /// # Errors
    /// When the certificates cannot be read.
    pub(crate) fn new(settings: Settings) -> Result<Self, HubError> {
        let mut config = Agent::config_builder()
            .user_agent(concat!("lowburn/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(settings.silence))
            .timeout_connect(Some(settings.silence))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .proxy(settings.proxy.then(Proxy::try_from_env).flatten());
        if let Some(path) = &settings.certificates {
            let roots = RootCerts::new_with_certs(&certificates(path)?);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: config.build().into(),
            settings,
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends a request and follows redirects, until an answer that is none or, for HEAD, one that carries the digest.
    ///
    /// # Errors
    /// For every failure of the connection; any status is an answer.
    pub(crate) fn send(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let mut url = ask.url.to_owned();
        for _ in 0..=REDIRECTS {
            let response = self.once(ask, &url)?;
            let location =
                header(&response, "location").filter(|_| response.status().is_redirection());
            let digest_is_here = header(&response, "x-linked-etag").is_some();
            let next = location.filter(|_| *ask.method != Method::HEAD || !digest_is_here);
            let Some(next) = next else {
                return Ok(Answer { response, url });
            };
            url = url::join(&url, next).ok_or_else(|| self.bad(ask, "an odd redirect"))?;
        }
        Err(self.bad(ask, "too many redirects").into())
    }

    fn once(&self, ask: Ask<'_>, url: &str) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(url)
            // A file as it lies there: its length and digest are those of the plain bytes.
            .header("accept-encoding", "identity");
        if ask.from > 0 {
            request = request.header("range", format!("bytes={}-", ask.from));
        }
        if let Some(token) = &self.settings.token
            && url::same_origin(url, &self.settings.endpoint)
        {
            request = request.header("authorization", token.header());
        }
        let request = request
            .body(())
            .map_err(|error| self.bad(ask, &error.to_string()))?;
        self.agent
            .run(request)
            .map_err(|error| self.failure(ask, url, &error))
    }

    /// Which failures of a connection may pass.
    fn failure(&self, ask: Ask<'_>, url: &str, error: &ureq::Error) -> Failure {
        let reason = match error {
            ureq::Error::Timeout(_) => {
                format!("no answer for {} s", self.settings.silence.as_secs_f64())
            }
            other => other.to_string().trim_start_matches("io: ").to_owned(),
        };
        let place = url::origin(url).unwrap_or_default();
        if reason.to_lowercase().contains("certificate") {
            return Failure::Final(HubError::Connection {
                place,
                reason,
                way_out: "behind a proxy that opens TLS, set SSL_CERT_FILE to the file (PEM) with its certificate",
            });
        }
        match error {
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::Protocol(_)
            | ureq::Error::BodyStalled => Failure::passing(if place == self.settings.endpoint {
                reason
            } else {
                format!("{place}: {reason}")
            }),
            _ => Failure::Final(HubError::Connection {
                place,
                reason: format!("{reason} (asking for {})", ask.what),
                way_out: "check HF_ENDPOINT and HTTPS_PROXY",
            }),
        }
    }

    /// Tries until it succeeds, fails for good, or has failed too often without getting any further.
    ///
    /// # Errors
    /// The final failure, or [`HubError::Unreachable`].
    pub(crate) fn persist<T>(
        &self,
        what: &str,
        attempts: u32,
        hear: Hear<'_>,
        mut attempt: impl FnMut(Hear<'_>) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut failed = 0;
        loop {
            let (reason, asked) = match attempt(hear) {
                Ok(result) => return Ok(result),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing {
                    reason,
                    pause,
                    progress,
                }) => {
                    failed = if progress { 1 } else { failed + 1 };
                    (reason, pause)
                }
            };
            let too_long = asked.is_some_and(|pause| pause > LONGEST_PAUSE);
            if failed >= attempts || too_long {
                return Err(HubError::Unreachable {
                    what: what.to_owned(),
                    place: self.settings.endpoint.clone(),
                    reason,
                    attempts: failed,
                });
            }
            let pause = asked.unwrap_or_else(|| self.pause(failed));
            hear(&Event::Retry {
                reason: &reason,
                pause,
            });
            std::thread::sleep(pause);
        }
    }

    /// Doubles with each failure; shortened at random by up to a half, so that many processes do not knock in step.
    fn pause(&self, failed: u32) -> Duration {
        let whole = self.settings.pause * 2_u32.saturating_pow(failed.saturating_sub(1).min(5));
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        whole.mul_f64(1.0 - random / 2.0)
    }

    fn bad(&self, ask: Ask<'_>, problem: &str) -> HubError {
        HubError::Answer {
            place: self.settings.endpoint.clone(),
            what: ask.what.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// A header's value, where it is text.
pub(crate) fn header<'a, T>(answer: &'a Response<T>, name: &str) -> Option<&'a str> {
    text(answer.headers(), name)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A status that may be another one soon, and the pause that the server asks for.
pub(crate) fn passing<T>(answer: &Response<T>) -> Option<Failure> {
    let status = answer.status();
    if !(status.is_server_error() || [408, 425, 429].contains(&status.as_u16())) {
        return None;
    }
    let pause = header(answer, "retry-after").and_then(|seconds| seconds.parse().ok());
    Some(Failure::Passing {
        reason: match (status.as_u16(), pause) {
            (429, Some(seconds)) => {
                format!(
                    "429, too many requests (wait {seconds} s, or set HF_TOKEN for a higher limit)"
                )
            }
            (429, None) => "429, too many requests (HF_TOKEN gives a higher limit)".to_owned(),
            _ => format!("status {status}"),
        },
        pause: pause.map(Duration::from_secs),
        progress: false,
    })
}

/// The certificates in a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, HubError> {
    let pem = fs::read(path).map_err(|source| HubError::Io {
        action: "read the certificates in",
        path: path.to_owned(),
        source,
    })?;
    let found: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(HubError::Certificates {
            path: path.to_owned(),
        });
    }
    Ok(found)
}
