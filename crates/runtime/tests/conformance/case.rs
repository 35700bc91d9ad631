//! Cases as they stand in the files.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dunlin_model::{
    AccountId, CodePackage, Crc64, Digest, Function, FunctionKey, FunctionPatch, InstanceId, Limits, Revision, VersionKey,
};
use dunlin_runtime::{LoadSpec, LogSink, Payload};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
    Java,
    Php,
    Dotnet,
    Go,
    Provided,
    Custom,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Java => "java",
            Self::Php => "php",
            Self::Dotnet => "dotnet",
            Self::Go => "go",
            Self::Provided => "provided",
            Self::Custom => "custom",
        }
    }
}

/// Where the bootstraps and the suite are.
pub(crate) fn runtimes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes").canonicalize().expect("the runtimes are in the checkout")
}

/// What is embedded for guests, written out once: what they find in `/rt`.
pub(crate) fn assets() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap().keep();
        for (name, content) in dunlin_sandbox::assets::files() {
            let path = place.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        place
    })
}

pub(crate) struct Case(Value);

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let folder = runtimes().join("conformance/cases");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let read = |file: PathBuf| -> Vec<Value> {
            let text = std::fs::read_to_string(&file).unwrap();
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        files.into_iter().flat_map(read).map(Self).collect()
    }

    pub(crate) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap()
    }

    pub(crate) fn files(&self, language: Language) -> Option<&serde_json::Map<String, Value>> {
        self.0["code"].get(language.name())?.as_object()
    }

    /// What loading is expected to do, when it is not to succeed.
    pub(crate) fn load(&self) -> Option<&Value> {
        self.0.get("load")
    }

    /// Whether the calls are made side by side.
    pub(crate) fn together(&self) -> bool {
        self.0["together"] == true
    }

    pub(crate) fn calls(&self, language: Language) -> Vec<Call<'_>> {
        let calls = self.0["calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        calls.iter().map(|call| Call { common: call, own: call.get(language.name()) }).collect()
    }

    /// A member that is one text, or one per language.
    fn text(&self, member: &str, language: Language) -> Option<&str> {
        let value = self.0.get(member)?;
        value.as_str().or_else(|| value.get(language.name())?.as_str())
    }

    /// The function's handler, as the language writes it.
    pub(crate) fn handler(&self, language: Language) -> String {
        self.text("handler", language).map_or_else(|| "index.handler".to_owned(), |name| spelled(name, language))
    }

    pub(crate) fn write(&self, language: Language, code: &Path) {
        for (name, content) in self.files(language).unwrap() {
            let content = content.as_str().unwrap();
            let content = match content.strip_prefix("#!server\n") {
                Some(rest) => {
                    let server = std::fs::read_to_string(runtimes().join("conformance/server.py")).unwrap();
                    format!("{server}\n\n{rest}\nserve()\n")
                }
                None => content.to_owned(),
            };
            let path = code.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name == "bootstrap" {
                std::fs::write(&path, format!("#!/usr/bin/env python3\n{content}")).unwrap();
                std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
            } else {
                std::fs::write(path, content).unwrap();
            }
        }
    }

    pub(crate) fn spec(&self, language: Language, code: &Path, instance: InstanceId, logs: Arc<dyn LogSink>) -> LoadSpec {
        let runtime = self.text("runtime", language).unwrap_or(match language {
            Language::Python => "python3.10",
            Language::Node => "nodejs20",
            Language::Java => "java11",
            Language::Php => "php7.2",
            Language::Dotnet => "dotnetcore3.1",
            Language::Go => "go1",
            Language::Provided => "provided.al2023",
            Language::Custom => "custom.debian12",
        });
        let hook = |member: &str| self.text(member, language).map(|name| json!({"handler": spelled(name, language)}));
        let mut patch = json!({
            "functionName": "f", "runtime": runtime, "handler": self.handler(language),
            "instanceLifecycleConfig": {"initializer": hook("initializer"), "preStop": hook("preStop")},
        });
        for (member, value) in self.0["config"].as_object().into_iter().flatten() {
            patch[member] = value.clone();
        }
        let patch: FunctionPatch = serde_json::from_value(patch).unwrap();
        let limits = Limits::default();
        // The handler's form is one of the things users get wrong; here it must reach the bootstrap.
        let handler = patch.handler.clone().unwrap();
        let formed = match language {
            Language::Java => "Index::handler",
            Language::Dotnet => "Index::Index::Handler",
            _ => "index.handler",
        };
        let mut config = FunctionPatch { handler: Some(formed.to_owned()), ..patch }.create(&limits).unwrap();
        config.handler = handler;
        let code_text = code.to_str().unwrap();
        config.environment_variables = self.0.get("env").and_then(Value::as_object).map(|env| {
            env.iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().replace("{code}", code_text)))
                .collect::<BTreeMap<_, _>>()
        });
        if language == Language::Custom {
            config.custom_runtime_config.get_or_insert_default().port = Some(i64::from(free_port()));
        }
        let account: AccountId = "1234567890123456".parse().unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let package = CodePackage { digest: Digest::of(b""), checksum: Crc64(0), size: 0 };
        LoadSpec {
            template: false,
            instance,
            key: VersionKey {
                function: FunctionKey::from_stored(account, "f".parse().unwrap()),
                version: "LATEST".into(),
                revision: Revision(1),
            },
            function: Arc::new(Function { config, code: package, function_id: "id".to_owned(), created: now, modified: now }),
            qualifier: "LATEST".to_owned(),
            request: dunlin_model::RequestId::random(),
            region: "cn-hangzhou".to_owned(),
            logs,
        }
    }
}

/// `src/index.handler` as the language writes it: in Java that is `src.Index::handler`. `index.handler` is
/// `Index::Index::Handler` in .NET.
fn spelled(name: &str, language: Language) -> String {
    if language == Language::Dotnet && !name.contains("::") {
        let (file, method) = name.rsplit_once('.').map_or((name, None), |(file, method)| (file, Some(method)));
        let class = capitalised(file);
        return method.map_or_else(|| class.clone(), |method| format!("{class}::{class}::{}", capitalised(method)));
    }
    if language != Language::Java || name.contains("::") {
        return name.to_owned();
    }
    let (file, method) = name.rsplit_once('.').map_or((name, None), |(file, method)| (file, Some(method)));
    let (folder, file) = file.rsplit_once('/').map_or(("", file), |(folder, file)| (folder, file));
    let mut class = folder.replace('/', ".");
    if !class.is_empty() {
        class.push('.');
    }
    class.push_str(&capitalised(file));
    method.map_or_else(|| class.clone(), |method| format!("{class}::{method}"))
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).collect::<String>() + letters.as_str()
}

/// A port nothing listens on, below those the kernel gives to whoever asks for any: nobody gets it before the server does.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A call, and what is different in it for the language.
pub(crate) struct Call<'c> {
    common: &'c Value,
    own: Option<&'c Value>,
}

impl Call<'_> {
    pub(crate) fn deed(&self) -> &str {
        self.common["do"].as_str().unwrap_or("invoke")
    }

    pub(crate) fn patience(&self) -> Option<Duration> {
        self.common["deadlineMs"].as_u64().map(Duration::from_millis)
    }

    pub(crate) fn expected(&self) -> &Value {
        &self.common["expect"]
    }

    pub(crate) fn payload(&self) -> Payload {
        let own = self.own.and_then(|own| bytes_of(own, "event"));
        let event = own.or_else(|| bytes_of(self.common, "event")).unwrap_or_default().into();
        match bytes_of(self.common, "requestBody") {
            None => Payload::Event(event),
            Some(body) => Payload::Streaming(event, Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()),
        }
    }
}

/// The bytes a member gives as text, as base64 or as something repeated.
pub(crate) fn bytes_of(value: &Value, member: &str) -> Option<Vec<u8>> {
    if let Some(text) = value.get(member).and_then(Value::as_str) {
        return Some(text.as_bytes().to_vec());
    }
    if let Some(text) = value.get(format!("{member}Base64")).and_then(Value::as_str) {
        return Some(from_base64(text));
    }
    let pairs = value.get(format!("{member}Repeat"))?.as_array()?.chunks(2);
    let repeated = |pair: &[Value]| {
        let times = usize::try_from(pair[1].as_u64().unwrap()).unwrap();
        pair[0].as_str().unwrap().repeat(times)
    };
    Some(pairs.map(repeated).collect::<String>().into_bytes())
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == byte).expect("cases hold proper base64");
        bits = bits << 6 | u32::try_from(digit).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
