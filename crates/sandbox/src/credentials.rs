//! `credentials.json`: the root access key, written by the supervisor for the user who started it.
//!
//! # Invariants
//! - The key is made once per data directory and never changes by itself.
//! - The file is readable by its owner alone, at every moment of its life.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dunlin_model::{AccessKeyId, AccountId};
use serde::{Deserialize, Serialize};

const FILE: &str = "credentials.json";

/// How to reach the platform as its root account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// Where the platform listens, for example `http://127.0.0.1:7900`.
    pub endpoint: String,
    /// The region it takes itself for.
    pub region: String,
    /// The root account.
    pub account_id: AccountId,
    /// The root key's public half.
    pub access_key_id: AccessKeyId,
    /// The root key's secret half.
    pub access_key_secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("account_id", &self.account_id)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Why the root key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} does not hold credentials", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

impl Credentials {
    /// Reads the key of a data directory, or makes it. The file is rewritten when endpoint or region have changed.
    /// `owner` is the uid the file is given to.
    pub fn open(data_dir: &Path, endpoint: &str, region: &str, owner: u32) -> Result<Self, CredentialsError> {
        let path = data_dir.join(FILE);
        let io_error = |source| CredentialsError::Io { path: path.clone(), source };
        let old = match fs::read(&path) {
            Ok(text) => {
                let read = serde_json::from_slice::<Self>(&text);
                Some(read.map_err(|source| CredentialsError::Unreadable { path: path.clone(), source })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(error)),
        };
        let new = match &old {
            Some(old) => Self { endpoint: endpoint.into(), region: region.into(), ..old.clone() },
            None => Self::random(endpoint, region),
        };
        if old.as_ref() != Some(&new) {
            new.write(data_dir, &path, owner).map_err(io_error)?;
        }
        Ok(new)
    }

    fn random(endpoint: &str, region: &str) -> Self {
        let digits = random_text(b"0123456789", 15);
        Self {
            endpoint: endpoint.into(),
            region: region.into(),
            account_id: format!("1{digits}").parse().expect("sixteen digits"),
            access_key_id: format!("LTAI{}", random_text(ALPHANUMERIC, 20)).parse().expect("letters and digits"),
            access_key_secret: random_text(ALPHANUMERIC, 30),
        }
    }

    fn write(&self, data_dir: &Path, path: &Path, owner: u32) -> io::Result<()> {
        let next = data_dir.join(format!("{FILE}.new"));
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&next)?;
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        file.write_all(&text)?;
        std::os::unix::fs::fchown(&file, Some(owner), None)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        File::open(data_dir)?.sync_all()
    }
}

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn random_text(alphabet: &[u8], length: usize) -> String {
    // Bytes beyond the last whole multiple of the alphabet are drawn again, so that every character is as likely.
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
        let drawn = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        text.extend(drawn.take(length - text.len()).map(|byte| char::from(alphabet[byte % alphabet.len()])));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_key_stays_when_the_port_changes() {
        let dir = tempfile::tempdir().unwrap();
        let owner = rustix::process::getuid().as_raw();
        let first = Credentials::open(dir.path(), "http://127.0.0.1:1", "cn-hangzhou", owner).unwrap();
        let second = Credentials::open(dir.path(), "http://127.0.0.1:2", "cn-hangzhou", owner).unwrap();
        assert_eq!(second, Credentials { endpoint: "http://127.0.0.1:2".into(), ..first.clone() });
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o7777, 0o600);
        assert!(!format!("{first:?}").contains(&first.access_key_secret));
        fs::write(dir.path().join(FILE), "{}").unwrap();
        let error = Credentials::open(dir.path(), "", "", owner).unwrap_err();
        assert!(matches!(error, CredentialsError::Unreadable { .. }));
    }
}
