//! Container images made by hand: a test says every header of every layer, also those that no tool would write.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The kind of a tar entry.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Link,
    /// Another name of a file.
    HardLink,
    /// Any other, by its flag.
    Other(u8),
}

/// A tar archive that grows.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

/// What an entry says beside its name.
#[derive(Clone, Copy, Debug)]
pub struct Says<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its permissions.
    pub mode: u32,
    /// Its user.
    pub uid: u64,
    /// Its group.
    pub gid: u64,
    /// Where a link leads.
    pub target: &'a str,
}

impl Default for Says<'_> {
    fn default() -> Self {
        Self { kind: Kind::File, mode: 0o644, uid: 0, gid: 0, target: "" }
    }
}

impl Layer {
    /// A layer with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds whatever is said, true or not.
    #[must_use]
    pub fn entry(mut self, name: &str, says: Says<'_>, contents: &[u8]) -> Self {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        let number = |value: u64, digits: usize| -> Vec<u8> {
            if value < 1 << (3 * digits) {
                return format!("{value:0digits$o}\0").into_bytes();
            }
            let mut field = vec![0; digits + 1 - 8];
            field.extend(value.to_be_bytes());
            field[0] = 0x80;
            field
        };
        if name.len() > 100 {
            let long = format!("{name}\0");
            self = self.entry("././@LongLink", Says { kind: Kind::Other(b'L'), ..Says::default() }, long.as_bytes());
        }
        put(0, &name.as_bytes()[..name.len().min(100)]);
        put(100, &number(u64::from(says.mode), 7));
        put(108, &number(says.uid, 7));
        put(116, &number(says.gid, 7));
        put(124, &number(contents.len() as u64, 11));
        put(136, b"14000000000\0");
        put(148, b"        ");
        let flag = match says.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Link => b'2',
            Kind::Directory => b'5',
            Kind::Other(flag) => flag,
        };
        put(156, &[flag]);
        put(157, says.target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A file of root's that everybody can read.
    #[must_use]
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        self.entry(name, Says::default(), contents.as_ref())
    }

    /// A program of root's that everybody can run.
    #[must_use]
    pub fn program(self, name: &str, contents: &[u8]) -> Self {
        self.entry(name, Says { mode: 0o755, ..Says::default() }, contents)
    }

    /// A folder of root's.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.entry(name, Says { kind: Kind::Directory, mode: 0o755, ..Says::default() }, b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, Says { kind: Kind::Link, mode: 0o777, target, ..Says::default() }, b"")
    }

    /// The archive.
    #[must_use]
    pub fn tar(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// How a layer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
}

impl Packing {
    fn pack(self, tar: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(tar)?;
                encoder.finish()?
            }
            Self::Zstd => zstd::encode_all(tar, 1)?,
        })
    }

    fn media_type(self) -> String {
        let suffix = match self {
            Self::Plain => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        };
        format!("application/vnd.oci.image.layer.v1.tar{suffix}")
    }
}

/// An image and everything it is made of.
#[derive(Clone, Debug)]
pub struct Image {
    /// By their digests in hexadecimal. A test may change one.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The manifest's.
    pub manifest: String,
    config: String,
    layers: Vec<String>,
}

/// The SHA-256 of `bytes` in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Image {
    /// An image of `layers` whose `program` is what Docker calls `config`: `Entrypoint`, `Cmd`, `Env`, `User`, `WorkingDir`.
    ///
    /// # Errors
    /// When a layer cannot be packed.
    pub fn new(layers: &[(Vec<u8>, Packing)], program: &Value) -> Result<Self> {
        Self::on("linux", "amd64", layers, program)
    }

    /// The same for another machine.
    ///
    /// # Errors
    /// When a layer cannot be packed.
    pub fn on(os: &str, machine: &str, layers: &[(Vec<u8>, Packing)], program: &Value) -> Result<Self> {
        let mut blobs = BTreeMap::new();
        let mut keep = |bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            blobs.insert(digest.clone(), bytes);
            digest
        };
        let diffs: Vec<_> = layers.iter().map(|(tar, _)| format!("sha256:{}", sha256(tar))).collect();
        let config = json!({
            "architecture": machine, "os": os, "config": program, "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config_bytes = config.to_string().into_bytes();
        let config_size = config_bytes.len();
        let config = keep(config_bytes);
        let (mut names, mut descriptors) = (Vec::new(), Vec::new());
        for (tar, packing) in layers {
            let packed = packing.pack(tar)?;
            let size = packed.len();
            let digest = keep(packed);
            descriptors.push(json!({"mediaType": packing.media_type(), "digest": format!("sha256:{digest}"), "size": size}));
            names.push(digest);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config}"), "size": config_size,
            },
            "layers": descriptors,
        });
        let manifest = keep(manifest.to_string().into_bytes());
        Ok(Self { blobs, manifest, config, layers: names })
    }

    /// What an index says of the image.
    #[must_use]
    pub fn descriptor(&self, os: &str, machine: &str) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", self.manifest),
            "size": self.blobs[&self.manifest].len(),
            "platform": {"os": os, "architecture": machine},
        })
    }

    /// The files of an OCI layout.
    #[must_use]
    pub fn layout(&self) -> Vec<(String, Vec<u8>)> {
        let index = json!({"schemaVersion": 2, "manifests": [self.descriptor("linux", "amd64")]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        files.extend(self.blobs.iter().map(|(digest, bytes)| (format!("blobs/sha256/{digest}"), bytes.clone())));
        files
    }

    /// The same as a tar archive.
    #[must_use]
    pub fn layout_tar(&self) -> Vec<u8> {
        self.layout().iter().fold(Layer::new(), |archive, (name, bytes)| archive.file(name, bytes)).tar()
    }

    /// As `docker save` wrote it for long: each layer in a folder of its own, the second of two equal ones a link.
    #[must_use]
    pub fn saved_tar(&self) -> Vec<u8> {
        let mut archive = Layer::new().file(&format!("{}.json", self.config), &self.blobs[&self.config]);
        let mut names: Vec<String> = Vec::new();
        for (index, digest) in self.layers.iter().enumerate() {
            let name = format!("{index}/layer.tar");
            archive = match self.layers.iter().position(|other| other == digest).filter(|first| *first < index) {
                Some(first) => archive.link(&name, &format!("../{first}/layer.tar")),
                None => archive.file(&name, &self.blobs[digest]),
            };
            names.push(name);
        }
        let manifest = json!([{"Config": format!("{}.json", self.config), "RepoTags": ["app:1"], "Layers": names}]);
        archive.file("manifest.json", manifest.to_string()).tar()
    }
}
