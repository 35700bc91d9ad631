//! What lies outside of a project's file on this machine.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use dunlin_auth::SigningKey;
use dunlin_project::World;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The environment, files, and the key the platform is spoken to with.
pub(super) struct Machine {
    /// `.env` beside the project's file; the environment itself counts first.
    dotenv: BTreeMap<String, String>,
    id: String,
    secret: String,
}

impl Machine {
    pub(super) fn new(file: &Path, key: &SigningKey) -> Self {
        let text = std::fs::read_to_string(file.with_file_name(".env")).unwrap_or_default();
        Self { dotenv: dotenv(&text), id: key.id.clone(), secret: key.secret.clone() }
    }
}

impl World for Machine {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.dotenv.get(name).cloned())
    }

    fn config(&self, name: &str) -> Option<String> {
        match name {
            "AccessKeyID" => Some(self.id.clone()),
            "AccessKeySecret" => Some(self.secret.clone()),
            "AccountID" => std::env::var("DUNLIN_ACCOUNT_ID").ok(),
            _ => None,
        }
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        Ok(text)
    }
}

/// Lines of `NAME=VALUE`, with or without `export` and quotes. Others are left out.
fn dotenv(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='));
    pairs
        .map(|(name, value)| {
            let value = value.trim();
            let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
            (name.trim().to_owned(), quoted.unwrap_or(value).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotenv_file_is_read_as_shells_do() {
        let read = dotenv("# a comment\nA=1\nexport B = \"x y\"\nC='z=1'\n\nnothing\n");
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("A", "1"), ("B", "x y"), ("C", "z=1")]);
    }
}
