//! As much of addresses as redirects need.

/// Where a redirect leads, seen from the address that answered with it. `None` for anything but http and https.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    let origin = origin(base)?;
    let joined = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        let (scheme, _) = base.split_once("://")?;
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else {
        let path = base.split(['?', '#']).next()?;
        let folder = path.rfind('/').filter(|end| *end >= origin.len());
        format!("{}/{location}", &path[..folder.unwrap_or(path.len())])
    };
    self::origin(&joined).map(|_| joined)
}

/// Scheme, host and port in one spelling: `https://huggingface.co`.
pub(crate) fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.to_ascii_lowercase();
    let host = host.strip_suffix(usual).unwrap_or(&host);
    (!host.is_empty()).then(|| format!("{scheme}://{host}"))
}

/// Whether two addresses have scheme, host and port in common.
pub(crate) fn same_origin(one: &str, other: &str) -> bool {
    let one = origin(one);
    one.is_some() && one == origin(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_browsers_would_go() {
        let base = "https://hub/a/b?c=/d";
        for (location, expected) in [
            ("https://cdn/x?y", Some("https://cdn/x?y")),
            ("//cdn/x", Some("https://cdn/x")),
            ("/x", Some("https://hub/x")),
            ("x", Some("https://hub/a/x")),
            ("file:///etc/passwd", None),
            ("https://", None),
        ] {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
        assert_eq!(join("https://hub", "x").as_deref(), Some("https://hub/x"));
    }

    #[test]
    fn the_token_would_go_to_the_same_scheme_host_and_port_only() {
        let hub = "https://huggingface.co";
        for (other, same) in [
            ("https://HuggingFace.co:443/a/b", true),
            ("http://huggingface.co/a", false),
            ("https://huggingface.co:8443/a", false),
            ("https://huggingface.co.evil.example/a", false),
            ("https://cdn.huggingface.co/a", false),
            ("https://huggingface.co@evil.example/a", false),
            ("https://evil.example/?https://huggingface.co", false),
            ("huggingface.co", false),
        ] {
            assert_eq!(same_origin(other, hub), same, "{other}");
        }
    }
}
