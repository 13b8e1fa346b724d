//! What it means when the hub says no: its own words stand in `X-Error-Code` and `X-Error-Message`.

use ureq::http::Response;

use crate::error::HubError;
use crate::http::header;
use crate::name::RepoName;
use crate::settings::Settings;

/// Longest text of a server that is shown.
const LONGEST: usize = 200;

/// The error for an answer that is neither a success nor one that may pass.
pub(crate) fn refused<T>(
    settings: &Settings,
    name: &RepoName,
    file: Option<&str>,
    answer: &Response<T>,
) -> HubError {
    let repo = name.to_string();
    let endpoint = settings.endpoint.clone();
    let token = settings.token.is_some();
    let status = answer.status().as_u16();
    let message = header(answer, "x-error-message");
    let wrong_token = message.is_some_and(|text| text.contains("nvalid credentials"));
    match (header(answer, "x-error-code"), status, file) {
        (Some("RevisionNotFound"), ..) => HubError::RevisionNotFound {
            revision: name.revision().to_owned(),
            repo,
        },
        (Some("EntryNotFound"), _, Some(file)) | (None, 404, Some(file)) => {
            HubError::FileNotFound {
                repo,
                file: file.to_owned(),
            }
        }
        (Some("GatedRepo"), ..) => HubError::Refused {
            way_out: "its owners want to be asked: accept the conditions on its page, then set HF_TOKEN",
            reason: message.map(shown),
            repo,
            endpoint,
            status,
        },
        (_, 401, _) if wrong_token => HubError::Refused {
            way_out: "HF_TOKEN, or the token file, holds no valid token; make a new one or unset it",
            reason: message.map(shown),
            repo,
            endpoint,
            status,
        },
        // The hub answers 401 for whatever it does not show to strangers, and for what is not there at all.
        (Some("RepoNotFound"), ..) | (_, 401 | 404, _) => HubError::RepoNotFound {
            kind: name.kind(),
            repo,
            endpoint,
            token,
        },
        (_, 403, _) => HubError::Refused {
            way_out: if token {
                "the token may not read it; give it the right to, or use another"
            } else {
                "set HF_TOKEN to a token that may read it"
            },
            reason: message.map(shown),
            repo,
            endpoint,
            status,
        },
        _ => HubError::Status {
            place: endpoint,
            what: file.map_or(repo.clone(), |file| format!("`{file}` of {repo}")),
            status,
        },
    }
}

/// A server's words, as far as they are fit for a line.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}
