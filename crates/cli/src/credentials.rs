//! Where the platform is and which key to sign with.
//!
//! What is given on the command line or in `DUNLIN_…` counts; what is missing is read from `credentials.json`: the one of
//! `--data`, else of `--credentials` or `DUNLIN_CREDENTIALS`, else of `./dunlin-data`.

use std::path::{Path, PathBuf};

use dunlin_auth::SigningKey;
use serde::Deserialize;

use crate::args::Shared;
use crate::failure::{Failure, Kind};

/// A place and a key.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// `host:port`.
    pub(crate) authority: String,
    pub(crate) key: SigningKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    endpoint: String,
    access_key_id: String,
    access_key_secret: String,
}

/// The data directory a command without `--data` uses.
pub(crate) fn default_data() -> PathBuf {
    PathBuf::from("dunlin-data")
}

/// Puts the pieces together.
pub(crate) fn find(shared: &Shared) -> Result<Credentials, Failure> {
    let given = (shared.endpoint.clone(), shared.access_key_id.clone(), shared.access_key_secret.clone());
    let (endpoint, id, secret) = match given {
        (Some(endpoint), Some(id), Some(secret)) => (endpoint, id, secret),
        (endpoint, id, secret) => {
            let file = read(&path(shared))?;
            // A key and its secret come from one place.
            let (id, secret) = match (id, secret) {
                (Some(id), Some(secret)) => (id, secret),
                (None, None) => (file.access_key_id, file.access_key_secret),
                _ => return Err(Failure::usage("cannot sign", "an access key needs both its id and its secret")),
            };
            (endpoint.unwrap_or(file.endpoint), id, secret)
        }
    };
    Ok(Credentials { authority: authority(&endpoint)?, key: SigningKey { id, secret } })
}

fn path(shared: &Shared) -> PathBuf {
    match (&shared.data, &shared.credentials) {
        (Some(data), _) => data.join("credentials.json"),
        (None, Some(file)) => file.clone(),
        (None, None) => default_data().join("credentials.json"),
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let unusable = |why: String| {
        Failure::new(Kind::Denied, "cannot find out where the platform is", format!("{}: {why}", path.display()))
            .next("start one with 'dunlin up', point to one with --data DIR, or set DUNLIN_ENDPOINT, DUNLIN_ACCESS_KEY_ID and DUNLIN_ACCESS_KEY_SECRET")
    };
    let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))
}

fn authority(endpoint: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::usage("cannot use the endpoint", format!("'{endpoint}' {why}"));
    if endpoint.starts_with("https://") {
        return Err(wrong("needs TLS, which this command line does not speak; use the http:// address"));
    }
    let authority = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong("is not of the form http://HOST:PORT"))?;
    if parsed.host().is_empty() || authority.contains('@') {
        return Err(wrong("is not of the form http://HOST:PORT"));
    }
    Ok(if parsed.port().is_some() { authority.to_owned() } else { format!("{authority}:80") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:7900/", "127.0.0.1:7900"),
            ("localhost:1", "localhost:1"),
            ("http://a", "a:80"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(authority(endpoint).ok().as_deref(), Some(expected), "{endpoint}");
        }
        for endpoint in ["https://a", "", "http://", "http://a/b", "http://u@a", "a b"] {
            assert!(authority(endpoint).is_err(), "{endpoint}");
        }
    }
}
