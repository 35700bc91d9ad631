//! The archive an image comes in: which of its members are the configuration and the layers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use dunlin_model::ImageConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::tar::{Kind, Reader, Skip};
use crate::archive::Section;
use crate::error::Problem;

const MEMBERS_MAX: usize = 10_000;
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
const LAYERS_MAX: usize = 127;
/// How deep an index may lie in an index.
const INDEX_DEPTH_MAX: usize = 3;
/// Bytes of what an image says about its program.
const CONFIG_BYTES_MAX: usize = 32 << 10;

/// An image, ready to be unpacked.
pub(super) struct Image {
    pub(super) layers: Vec<Layer>,
    pub(super) config: ImageConfig,
    /// As the image calls it.
    pub(super) user: String,
}

/// One layer: where it lies in the archive, and the digest of it when it is not compressed.
pub(super) struct Layer {
    pub(super) at: u64,
    pub(super) size: u64,
    pub(super) diff: [u8; 32],
}

/// What members the archive has.
struct Members<'a> {
    file: &'a File,
    /// Where each lies, and how long it is.
    places: HashMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// An index has these instead.
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    os: Option<String>,
    architecture: Option<String>,
    config: Option<Program>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Program {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// Finds the image in the archive.
pub(super) fn open(file: &File, length: u64) -> Result<Image, Problem> {
    let members = Members::list(file, length)?;
    let (configuration, places) = if members.places.contains_key("index.json") {
        members.oci()?
    } else if members.places.contains_key("manifest.json") {
        members.saved()?
    } else {
        return Err(Problem::NotAnImage { what: "it holds neither index.json (an OCI layout) nor manifest.json (docker save)" });
    };
    let (os, machine) =
        (configuration.os.as_deref().unwrap_or("linux"), configuration.architecture.as_deref().unwrap_or("amd64"));
    if (os, machine) != ("linux", "amd64") {
        return Err(Problem::Platform { found: format!("{os}/{machine}") });
    }
    let wrong = |why: &str| Problem::Document { name: "configuration", why: why.to_owned() };
    if places.len() > LAYERS_MAX {
        return Err(wrong("it has more than 127 layers"));
    }
    if places.len() != configuration.rootfs.diff_ids.len() {
        return Err(wrong("it has another number of layers than the manifest"));
    }
    let mut layers = Vec::new();
    for ((at, size), diff) in places.into_iter().zip(&configuration.rootfs.diff_ids) {
        let diff = sha256(diff).ok_or_else(|| wrong("a layer's digest is no SHA-256"))?;
        layers.push(Layer { at, size, diff });
    }
    let program = configuration.config.unwrap_or_default();
    let config = ImageConfig {
        entrypoint: program.entrypoint.unwrap_or_default(),
        cmd: program.cmd.unwrap_or_default(),
        env: program.env.unwrap_or_default(),
        working_dir: program.working_dir.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        ..ImageConfig::default()
    };
    let user = program.user.unwrap_or_default();
    let texts = config.entrypoint.iter().chain(&config.cmd).chain(&config.env).chain([&config.working_dir, &user]);
    let mut total = 0;
    for text in texts {
        total += text.len() + 8;
        if text.contains('\0') {
            return Err(wrong("a text holds a NUL character"));
        }
    }
    if total > CONFIG_BYTES_MAX {
        return Err(wrong("entrypoint, command and environment have more than 32 KiB together"));
    }
    if !config.working_dir.starts_with('/') {
        return Err(wrong("its working directory is not an absolute path"));
    }
    Ok(Image { layers, config, user })
}

impl<'a> Members<'a> {
    fn list(file: &'a File, length: u64) -> Result<Self, Problem> {
        let mut reader = Reader::new(Section::new(file, 0, length));
        let mut places = HashMap::new();
        let mut links = Vec::new();
        let first = |problem: Problem| match problem {
            Problem::Tar { .. } | Problem::Truncated => Problem::NotAnImage { what: "it is no tar archive, or damaged" },
            other => other,
        };
        while let Some(entry) = reader.next().map_err(first)? {
            if places.len() + links.len() >= MEMBERS_MAX {
                return Err(Problem::TooManyEntries { limit: MEMBERS_MAX as u64 });
            }
            let Ok(name) = String::from_utf8(entry.name) else { continue };
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            match entry.kind {
                Kind::File => drop(places.insert(name, (reader.position(), entry.size))),
                Kind::Link | Kind::HardLink => links.push((name, entry.target, entry.kind)),
                Kind::Directory | Kind::Special => {}
            }
        }
        // Older archives of docker's have a layer once, and links to it.
        for (name, target, kind) in links {
            let Ok(target) = String::from_utf8(target) else { continue };
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = match (target.strip_prefix("../"), kind) {
                (Some(beside), Kind::Link) if !folder.contains('/') => beside.to_owned(),
                (None, Kind::Link) if !folder.is_empty() => format!("{folder}/{target}"),
                _ => target,
            };
            if let Some(place) = places.get(&target).copied() {
                places.insert(name, place);
            }
        }
        Ok(Self { file, places })
    }

    /// As the OCI's image layout has it: blobs by their digest.
    fn oci(&self) -> Result<(Configuration, Vec<(u64, u64)>), Problem> {
        let (at, size) = self.places["index.json"];
        let index: Index = self.document("index", at, size)?;
        let manifest = self.manifest(&index.manifests, INDEX_DEPTH_MAX)?;
        let config =
            manifest.config.ok_or(Problem::Document { name: "manifest", why: "it names no configuration".to_owned() })?;
        let (at, size) = self.blob(&config.digest)?;
        let configuration = self.document("configuration", at, size)?;
        let layers = manifest.layers.iter().map(|layer| self.blob(&layer.digest)).collect::<Result<_, _>>()?;
        Ok((configuration, layers))
    }

    /// The first manifest of these that is for this machine.
    fn manifest(&self, all: &[Descriptor], depth: usize) -> Result<Manifest, Problem> {
        let mut seen = Vec::new();
        for descriptor in all {
            if let Some(Platform { os, architecture }) = &descriptor.platform
                && (os.as_str(), architecture.as_str()) != ("linux", "amd64")
            {
                seen.push(format!("{os}/{architecture}"));
                continue;
            }
            let (at, size) = self.blob(&descriptor.digest)?;
            let manifest: Manifest = self.document("manifest", at, size)?;
            let is_index =
                manifest.config.is_none() && (!manifest.manifests.is_empty() || descriptor.media_type.contains("index"));
            if !is_index {
                return Ok(manifest);
            }
            if depth == 0 {
                return Err(Problem::Document { name: "index", why: "it is nested too deep".to_owned() });
            }
            return self.manifest(&manifest.manifests, depth - 1);
        }
        if seen.is_empty() {
            return Err(Problem::Document { name: "index", why: "it names no image".to_owned() });
        }
        seen.truncate(5);
        Err(Problem::Platform { found: seen.join(", ") })
    }

    /// As `docker save` writes it. What says which digest a member has is the configuration, and its own name.
    fn saved(&self) -> Result<(Configuration, Vec<(u64, u64)>), Problem> {
        let (at, size) = self.places["manifest.json"];
        let saved: Vec<Saved> = self.document("manifest", at, size)?;
        let saved = saved.into_iter().next();
        let saved = saved.ok_or(Problem::Document { name: "manifest", why: "it names no image".to_owned() })?;
        let (at, size) = self.place(&saved.config)?;
        let name = saved.config.strip_suffix(".json").unwrap_or(&saved.config);
        let digest = name.rsplit('/').next().unwrap_or(name);
        if let Some(digest) = sha256(&format!("sha256:{digest}")) {
            self.verify(&saved.config, (at, size), digest)?;
        }
        let configuration = self.document("configuration", at, size)?;
        let layers = saved.layers.iter().map(|layer| self.place(layer)).collect::<Result<_, _>>()?;
        Ok((configuration, layers))
    }

    fn place(&self, name: &str) -> Result<(u64, u64), Problem> {
        self.places.get(name).copied().ok_or_else(|| Problem::NoBlob { name: shown(name) })
    }

    /// The blob of this digest, verified.
    fn blob(&self, digest: &str) -> Result<(u64, u64), Problem> {
        let bytes = sha256(digest)
            .ok_or_else(|| Problem::Document { name: "manifest", why: format!("'{}' is no SHA-256", shown(digest)) })?;
        let name = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        let place = self.places.get(&name).copied().ok_or_else(|| Problem::NoBlob { name: shown(digest) })?;
        self.verify(digest, place, bytes)?;
        Ok(place)
    }

    fn verify(&self, name: &str, (at, size): (u64, u64), digest: [u8; 32]) -> Result<(), Problem> {
        let mut hash = Sha256::new();
        let mut section = Section::new(self.file, at, size);
        let mut buffer = vec![0; 128 << 10];
        loop {
            match section.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hash.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Io(error)),
            }
        }
        let actual: [u8; 32] = hash.finalize().into();
        if actual == digest { Ok(()) } else { Err(Problem::Digest { name: shown(name) }) }
    }

    fn document<T: DeserializeOwned>(&self, name: &'static str, at: u64, size: u64) -> Result<T, Problem> {
        if size > DOCUMENT_BYTES_MAX {
            return Err(Problem::Document { name, why: "it is larger than 4 MiB".to_owned() });
        }
        let mut bytes = Vec::new();
        Section::new(self.file, at, size).read_to_end(&mut bytes).map_err(Problem::Io)?;
        serde_json::from_slice(&bytes).map_err(|error| Problem::Document { name, why: error.to_string() })
    }
}

impl Skip for Section<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if self.pass(bytes) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// `sha256:` and 64 hexadecimal digits.
fn sha256(text: &str) -> Option<[u8; 32]> {
    let digest: dunlin_model::Digest = text.strip_prefix("sha256:")?.parse().ok()?;
    Some(digest.0)
}

/// Names are the image's, and may be anything.
fn shown(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}
