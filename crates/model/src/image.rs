//! Container images (contract section 8): what a function is configured with, and what its image says about itself.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::function::{CodePackage, CustomHealthCheckConfig, CustomRuntimeConfig};
use crate::ids::{AccountId, Digest, InvalidId};

/// The registry that stands for images of the account's own, which were brought to the platform without one.
pub const LOCAL_REGISTRY: &str = "local";

/// Member `customContainerConfig` of a function (contract section 4.3), as far as the platform acts on it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomContainerConfig {
    /// The image's reference.
    pub image: Option<String>,
    /// Replaces the image's own, and with it the image's command.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's own.
    pub command: Option<Vec<String>>,
    /// Where the server listens; absent means 9000.
    pub port: Option<i64>,
    /// When the server counts as up.
    pub health_check_config: Option<CustomHealthCheckConfig>,
    /// How the registry is spoken with.
    pub registry_config: Option<RegistryConfig>,
}

/// Member `registryConfig`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryConfig {
    /// Who asks.
    pub auth_config: Option<RegistryAuthConfig>,
    /// Whom to trust.
    pub cert_config: Option<RegistryCertConfig>,
    /// Where the registry is, in the vendor's networks; it has no meaning here.
    pub network_config: Option<Value>,
}

/// Member `authConfig`. Not to be printed: it holds a password.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryAuthConfig {
    /// The user.
    pub user_name: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl fmt::Debug for RegistryAuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuthConfig").finish_non_exhaustive()
    }
}

/// Member `certConfig`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryCertConfig {
    /// Whether the registry's certificate goes unchecked.
    pub insecure: Option<bool>,
    /// The authority that signed it.
    pub root_ca_cert_base64: Option<String>,
}

/// What an image says about the program in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program when there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where the program is started.
    pub working_dir: String,
    /// As whom.
    pub user: ImageUser,
}

/// Ids of a user, as they are inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageUser {
    /// 0 to 65,535, as all.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// The image that a function was given: kept by what it holds, so that nothing that happens to a registry's tag changes a
/// function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageUse {
    /// The reference with the digest of the image's manifest.
    pub resolved: String,
    /// What the image says.
    pub config: ImageConfig,
}

/// An image of the account's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalImage {
    /// What it is called.
    pub name: ImageName,
    /// The archive, and under the same digest the file system.
    pub package: CodePackage,
    /// Bytes of the file system's files.
    pub unpacked_bytes: u64,
    /// What the image says.
    pub config: ImageConfig,
    /// When it was brought.
    pub created: Timestamp,
}

/// `NAME:TAG` of an image of the account's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(Box<str>);

impl ImageName {
    /// As it is written, the tag included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const WRONG: InvalidId = InvalidId {
            what: "image",
            rule: "it must be NAME or NAME:TAG; a name has parts of a-z, 0-9, '.', '_' and '-' between slashes, a tag up to 128 \
                   letters, digits, '.', '_' and '-'",
        };
        let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
        if is_repository(name) && is_tag(tag) { Ok(Self(format!("{name}:{tag}").into())) } else { Err(WRONG) }
    }
}

/// Whether this is a repository's path as registries have them.
#[must_use]
pub fn is_repository(path: &str) -> bool {
    let part = |part: &str| {
        let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
        let bytes = part.as_bytes();
        ends(bytes.first()) && ends(bytes.last()) && part.bytes().all(inner) && !part.contains("..")
    };
    path.len() <= 255 && path.split('/').all(part)
}

/// Whether this is a tag as registries have them.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().all(inner) && !tag.starts_with(['.', '-'])
}

impl TryFrom<String> for ImageName {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses one image of one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageKey {
    pub(crate) account: AccountId,
    pub(crate) name: ImageName,
}

impl ImageKey {
    /// The account that owns the image.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The image's name and tag.
    #[must_use]
    pub fn name(&self) -> &ImageName {
        &self.name
    }

    /// Restores a key that the store itself wrote. Requests build keys through [`crate::AccountScope`] only.
    #[must_use]
    pub fn from_stored(account: AccountId, name: ImageName) -> Self {
        Self { account, name }
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.name)
    }
}

/// A reference to an image in a registry: `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// Where the registry is, as it was written.
    pub registry: String,
    /// The repository's path there.
    pub repository: String,
    /// The tag, or `sha256:…`.
    pub version: ImageVersion,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageVersion {
    /// Whichever has this tag.
    Tag(String),
    /// The one whose manifest has this digest.
    Digest(Digest),
}

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "sha256:{digest}"),
        }
    }
}

impl FromStr for ImageReference {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const WRONG: InvalidId = InvalidId {
            what: "image",
            rule: "it must be REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST, for example \
                   registry.example.com/team/app:1.0, or local/NAME:TAG for an image that was pushed to this platform",
        };
        let read = || {
            let (registry, rest) = match text.split_once('/') {
                // As everywhere: a first part that is a host has a dot or a port, or is this one.
                Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" || host == LOCAL_REGISTRY => (host, rest),
                Some(_) => ("docker.io", text),
                None => return None,
            };
            let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
            if registry.is_empty() || registry.len() > 255 || !registry.bytes().all(is_host) {
                return None;
            }
            let (rest, digest) = match rest.split_once('@') {
                Some((rest, digest)) => (rest, Some(digest.strip_prefix("sha256:")?.parse::<Digest>().ok()?)),
                None => (rest, None),
            };
            let (repository, tag) = match rest.split_once(':') {
                Some((repository, tag)) => (repository, Some(tag)),
                None => (rest, None),
            };
            let fine = is_repository(repository) && tag.is_none_or(is_tag);
            let version = match (digest, tag) {
                (Some(digest), _) => ImageVersion::Digest(digest),
                (None, tag) => ImageVersion::Tag(tag.unwrap_or("latest").to_owned()),
            };
            fine.then(|| Self { registry: registry.to_owned(), repository: repository.to_owned(), version })
        };
        read().ok_or(WRONG)
    }
}

/// The wire's name of [`CustomContainerConfig`].
pub(crate) const CONTAINER_MEMBER: &str = "customContainerConfig";

impl CustomContainerConfig {
    /// The same as a custom runtime has it: where the server listens, and when it is up.
    #[must_use]
    pub fn server(&self) -> CustomRuntimeConfig {
        CustomRuntimeConfig { port: self.port, health_check_config: self.health_check_config.clone(), ..Default::default() }
    }

    /// The program and its arguments, for an image that says `config` (contract section 8.1). Empty when neither says one.
    #[must_use]
    pub fn arguments<'a>(&'a self, config: &'a ImageConfig) -> Vec<&'a str> {
        let given = |words: &'a Option<Vec<String>>| words.as_deref().filter(|words| !words.is_empty());
        let (entrypoint, command) = (given(&self.entrypoint), given(&self.command));
        // An entrypoint of one's own leaves nothing for the image's command to be arguments of.
        let own = if entrypoint.is_some() { &[][..] } else { &config.cmd };
        entrypoint.unwrap_or(&config.entrypoint).iter().chain(command.unwrap_or(own)).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_taken_apart_as_everywhere() {
        let read = |text: &str| {
            let reference: ImageReference = text.parse().ok()?;
            Some((reference.registry, reference.repository, reference.version.to_string()))
        };
        let parts = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        let digest = Digest([7; 32]);
        assert_eq!(read("registry.example.com/a/b:1.0"), parts("registry.example.com", "a/b", "1.0"));
        assert_eq!(read("registry.example.com:5000/a"), parts("registry.example.com:5000", "a", "latest"));
        assert_eq!(read("team/app:x"), parts("docker.io", "team/app", "x"));
        assert_eq!(read("localhost/app"), parts("localhost", "app", "latest"));
        assert_eq!(read("local/app:2"), parts("local", "app", "2"));
        assert_eq!(read("[::1]:5000/app"), parts("[::1]:5000", "app", "latest"));
        assert_eq!(read(&format!("r.io/a:t@sha256:{digest}")), parts("r.io", "a", &format!("sha256:{digest}")));
        for wrong in [
            "",
            "app",
            "r.io/",
            "r.io/A",
            "r.io/a:",
            "r.io/a:-x",
            "r.io/a@sha256:12",
            "r.io/a@md5:00000000000000000000000000000000",
            "r.io/../a",
            "r.io/a//b",
            "https://r.io/a",
            "u:p@r.io/a",
            "r.io/a b",
            "r.io/a:b:c",
            "r io/a",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_given_replaces_what_the_image_says() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let image = ImageConfig { entrypoint: words(&["/e"]), cmd: words(&["c"]), ..ImageConfig::default() };
        let config = |entrypoint: &[&str], command: &[&str]| CustomContainerConfig {
            entrypoint: Some(words(entrypoint)),
            command: Some(words(command)),
            ..CustomContainerConfig::default()
        };
        assert_eq!(CustomContainerConfig::default().arguments(&image), ["/e", "c"]);
        assert_eq!(config(&[], &[]).arguments(&image), ["/e", "c"]);
        assert_eq!(config(&[], &["d", "f"]).arguments(&image), ["/e", "d", "f"]);
        assert_eq!(config(&["/x", "y"], &[]).arguments(&image), ["/x", "y"]);
        assert_eq!(config(&["/x"], &["z"]).arguments(&image), ["/x", "z"]);
        assert!(CustomContainerConfig::default().arguments(&ImageConfig::default()).is_empty());
    }

    #[test]
    fn a_password_is_not_printed() {
        let config: CustomContainerConfig =
            serde_json::from_str(r#"{"image":"a","registryConfig":{"authConfig":{"userName":"u","password":"geheim"}}}"#)
                .unwrap();
        assert_eq!(config.registry_config.as_ref().unwrap().auth_config.as_ref().unwrap().password.as_deref(), Some("geheim"));
        assert!(!format!("{config:?}").contains("geheim"));
    }
}
