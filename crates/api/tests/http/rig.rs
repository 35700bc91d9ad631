//! The API over a store in memory, real blobs in a temporary folder, and scripted rooms behind it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dunlin_api::{Api, Calls, Config, Parts};
use dunlin_auth::{SigningKey, Verifier, sign};
use dunlin_blobs::{Blobs, LocalBlobs};
use dunlin_control::{Control, Error, Instances, KeepsReady, Readiness, Sessions};
use dunlin_invoke::{Refusal, Reply, SessionMark};
use dunlin_model::{
    CellId, Crc64, Digest, ErrorType, FunctionConfig, FunctionError, FunctionKey, Interpreter, InterpreterVersion, Interpreters,
    Invocation, Language, LogType, Outcome, Phases, Qualifier, SessionAsk, SettingKey, Standing, Target,
};
use dunlin_pool::{InstanceInfo, InstanceState, SessionInfo, SessionKey, SessionRefusal, SessionStatus, SessionTerms};
use dunlin_runtime::{Answer, Payload};
use dunlin_sandbox::{
    Bind, BindError, Cell, CellKind, EndError, Ended, MakeError, Net, Prepare, Sandboxes, UnpackError, UnpackLimits, UnpackReport,
};
use dunlin_store::{AccessKey, Memory, Store};
use dunlin_telemetry::{Logs, LogsConfig};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The zip that the scripted unpacker refuses.
pub const BAD_ZIP: &[u8] = b"not a zip";

/// Unpacks everything but [`BAD_ZIP`], and remembers which trees there are.
#[derive(Default)]
pub struct Unpacker {
    pub trees: Mutex<BTreeSet<Digest>>,
}

#[async_trait]
impl Sandboxes for Unpacker {
    async fn make(&self, _: CellKind, _: Net) -> Result<Cell, MakeError> {
        Err(MakeError::Full)
    }
    async fn fork(&self, template: CellId) -> Result<Cell, MakeError> {
        Err(MakeError::NoTemplate(template))
    }
    async fn bind(&self, cell: CellId, _: &Bind) -> Result<(), BindError> {
        Err(BindError::NoSuchCell(cell))
    }
    async fn set_cpu(&self, cell: CellId, _: u32) -> Result<(), BindError> {
        Err(BindError::NoSuchCell(cell))
    }
    async fn socket(&self, cell: CellId) -> Result<OwnedFd, BindError> {
        Err(BindError::NoSuchCell(cell))
    }
    async fn freeze(&self, cell: CellId, _: bool) -> Result<(), BindError> {
        Err(BindError::NoSuchCell(cell))
    }
    async fn end(&self, cell: CellId) -> Result<Ended, EndError> {
        Err(EndError::NoSuchCell(cell))
    }
    async fn unpack(
        &self,
        package: Digest,
        zip: OwnedFd,
        _: UnpackLimits,
        prepare: Prepare,
    ) -> Result<UnpackReport, UnpackError> {
        let bytes = std::io::read_to_string(std::fs::File::from(zip)).unwrap_or_default();
        if bytes.as_bytes() == BAD_ZIP {
            return Err(UnpackError::Rejected { code: "traversal".to_owned(), message: "entry '../evil' climbs out".to_owned() });
        }
        self.trees.lock().unwrap().insert(package);
        let prepared = if prepare == Prepare::Image { vec![r#"{"entrypoint":["/server"]}"#.to_owned()] } else { Vec::new() };
        Ok(UnpackReport { bytes: 1, entries: 1, manifest: None, prepared: Some(prepared) })
    }
    async fn discard_tree(&self, package: Digest) -> Result<(), BindError> {
        self.trees.lock().unwrap().remove(&package);
        Ok(())
    }
}

/// One instance per function that was asked for, and what it was told about functions.
#[derive(Default)]
pub struct FakePool {
    pub retired: Mutex<Vec<String>>,
    pub expected: Mutex<Vec<String>>,
    pub limits: Mutex<Vec<(String, Option<usize>)>>,
    pub refreshed: AtomicUsize,
    pub sessions: Mutex<Vec<SessionInfo>>,
}

/// Remembers sessions and knows no time.
#[async_trait]
impl Sessions for FakePool {
    async fn create(&self, key: &SessionKey, _: &Target, terms: SessionTerms, notes: Box<str>) -> Result<SessionInfo, Error> {
        if self.get(key).is_some() {
            return Err(SessionRefusal::Exists { id: key.id.clone() }.into());
        }
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let session = SessionInfo {
            key: key.clone(),
            affinity: "HEADER_FIELD",
            status: SessionStatus::Active,
            terms,
            created: now,
            modified: now,
            instance: None,
            notes,
        };
        let mut sessions = self.sessions.lock().unwrap();
        sessions.push(session.clone());
        sessions.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(session)
    }
    fn get(&self, key: &SessionKey) -> Option<SessionInfo> {
        self.sessions.lock().unwrap().iter().find(|session| session.key == *key).cloned()
    }
    fn list(&self, function: &FunctionKey) -> Vec<SessionInfo> {
        self.sessions.lock().unwrap().iter().filter(|session| session.key.function == *function).cloned().collect()
    }
    fn update(&self, key: &SessionKey, terms: SessionTerms, notes: Box<str>) -> Result<(), SessionRefusal> {
        self.change(key, |session| (session.terms, session.notes) = (terms, notes))
    }
    fn pause(&self, key: &SessionKey, paused: bool) -> Result<(), SessionRefusal> {
        self.change(key, |session| session.status = if paused { SessionStatus::Paused } else { SessionStatus::Active })
    }
    fn end(&self, key: &SessionKey) -> Result<(), SessionRefusal> {
        self.change(key, |_| ())?;
        self.sessions.lock().unwrap().retain(|session| session.key != *key);
        Ok(())
    }
    fn forget(&self, function: &FunctionKey) {
        self.sessions.lock().unwrap().retain(|session| session.key.function != *function);
    }
}

impl FakePool {
    fn change(&self, key: &SessionKey, change: impl FnOnce(&mut SessionInfo)) -> Result<(), SessionRefusal> {
        let mut sessions = self.sessions.lock().unwrap();
        let found = sessions.iter_mut().find(|session| session.key == *key);
        found.map(change).ok_or_else(|| SessionRefusal::NotFound { id: key.id.clone() })
    }
}

impl Instances for FakePool {
    fn retire(&self, function: &FunctionKey, version: Option<&str>) {
        self.retired.lock().unwrap().push(format!("{}/{}", function.name(), version.unwrap_or("all")));
    }
    fn abort(&self, function: &FunctionKey) {
        self.retired.lock().unwrap().push(format!("{} at once", function.name()));
    }
    fn limit(&self, function: &FunctionKey, instances: Option<usize>) {
        self.limits.lock().unwrap().push((function.name().to_string(), instances));
    }
    fn expect(&self, config: &FunctionConfig) {
        self.expected.lock().unwrap().push(config.function_name.to_string());
    }
    fn instances(&self, _: &FunctionKey) -> Vec<InstanceInfo> {
        vec![InstanceInfo {
            id: "c-00000000-00000000-000000000001".parse().unwrap(),
            version: "LATEST".to_owned(),
            qualifier: "LATEST".to_owned(),
            created: Timestamp::from_second(1_700_000_000).unwrap(),
            state: InstanceState::Idle,
        }]
    }
}

impl KeepsReady for FakePool {
    fn refresh(&self) {
        self.refreshed.fetch_add(1, Ordering::SeqCst);
    }
    fn standing(&self, key: &SettingKey) -> Readiness {
        // Of this name there is never enough.
        let problem = (key.qualifier() == "short").then(|| "there is no room".to_owned());
        Readiness { target: 3, current: 2, problem }
    }
}

/// Answers the event it got as the version that was meant, or fails when the event says so.
struct Echo(Arc<dyn Store>);

#[async_trait]
impl Calls for Echo {
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal> {
        let Payload::Event(event) = payload else { return Err(Refusal::Platform("an API call carries an event".to_owned())) };
        if self.0.view().is_disabled(&invocation.function) {
            return Err(Refusal::Disabled);
        }
        let target = self.0.view().resolve(&invocation.function, &invocation.qualifier, invocation.request_id.chance())?;
        let result = match &event[..] {
            b"fail" => Err(FunctionError::worded(ErrorType::UnhandledInvocationError, Some("Exception"), "oops")),
            b"exit" => return Err(Refusal::RuntimeExited("exit status 1".to_owned())),
            _ => Ok(Answer::Event(event)),
        };
        Ok(Reply {
            outcome: if result.is_ok() { Outcome::Succeeded } else { Outcome::FunctionError },
            result,
            instance: Some("c-00000000-00000000-000000000001".parse().unwrap()),
            version: target.version_key(&invocation.function).version.to_string(),
            checksum: Crc64(7),
            phases: Phases { handler: Duration::from_millis(5), ..Phases::default() },
            memory_peak_bytes: 3 << 20,
            log_tail: (invocation.log_type == LogType::Tail).then(|| b"FC Invoke Start\n".to_vec()),
            session: (invocation.session == Some(SessionAsk::Begin))
                .then(|| SessionMark::Header { name: "my-session".into(), id: "begun".parse().unwrap() }),
        })
    }

    fn session_target(&self, _: &FunctionKey, _: &Qualifier, _: &SessionAsk) -> Option<Target> {
        None
    }
}

pub struct Rig {
    pub api: Api,
    pub control: Control,
    pub unpacker: Arc<Unpacker>,
    pub pool: Arc<FakePool>,
    pub blobs: Arc<dyn Blobs>,
    pub logs: Logs,
    _folder: tempfile::TempDir,
}

pub fn key_of(account: u8) -> SigningKey {
    SigningKey { id: format!("LTAI-{account}"), secret: format!("secret-{account}") }
}

pub struct Received {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The refusal's code and message, after its shape was checked.
    pub fn refused(&self, status: u16) -> (String, String) {
        let body = self.json();
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(body["RequestId"], self.header("x-fc-request-id"), "{body}");
        assert_eq!((&body["ErrorCode"], &body["ErrorMessage"]), (&body["Code"], &body["Message"]), "{body}");
        assert_eq!(self.header("content-type"), "application/json");
        (body["Code"].as_str().unwrap().to_owned(), body["Message"].as_str().unwrap().to_owned())
    }
}

impl Rig {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        for account in [1_u8, 2] {
            let key = key_of(account);
            let account = format!("{account:016}").parse().unwrap();
            store.put_access_key(&AccessKey { id: key.id.parse().unwrap(), account, secret: key.secret }).await.unwrap();
        }
        let clock = dunlin_auth::system_clock();
        let verifier = Verifier::open(Arc::clone(&store), dunlin_auth::Config::default(), Arc::clone(&clock)).await.unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(LocalBlobs::open(&folder.path().join("blobs")).unwrap());
        let unpacker = Arc::new(Unpacker::default());
        let pool = Arc::new(FakePool::default());
        let logs = Logs::start(LogsConfig::new(folder.path().join("logs"))).unwrap();
        let mut config = dunlin_control::Config::new("cn-hangzhou", [7; 32]);
        config.interpreters = interpreters();
        config.package_grace = Duration::ZERO;
        config.limits.code_bytes_max = 1 << 20;
        config.limits.payload_bytes_max = 1 << 20;
        config.limits.functions_per_account_max = 30;
        let control = Control::new(
            config,
            dunlin_control::Parts {
                store: Arc::clone(&store),
                blobs: Arc::clone(&blobs),
                sandboxes: Arc::clone(&unpacker) as Arc<dyn Sandboxes>,
                instances: Arc::clone(&pool) as Arc<dyn Instances>,
                scaling: Arc::clone(&pool) as Arc<dyn KeepsReady>,
                sessions: Arc::clone(&pool) as Arc<dyn Sessions>,
                outbound: dunlin_outbound::Outbound::new(false),
                clock,
            },
        );
        let calls = Arc::new(Echo(Arc::clone(&store)));
        let parts = Parts { verifier, control: control.clone(), calls, store: Arc::clone(&store), logs: logs.clone() };
        let api = Api::new(Config::default(), parts);
        Self { api, control, unpacker, pool, blobs, logs, _folder: folder }
    }

    /// Sends a request as it is.
    pub async fn raw(&self, method: &str, target: &str, headers: &[(String, String)], body: &[u8]) -> Received {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let (head, body) = self.api.handle(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert!(head.headers.contains_key("x-fc-request-id"), "{method} {target}");
        Received { status: head.status, headers: head.headers, bytes }
    }

    /// Signs as `account` and sends.
    pub async fn signed(&self, account: u8, method: &str, path: &str, extra: &[(&str, &str)], body: &[u8]) -> Received {
        let mut headers = vec![("host".to_owned(), "127.0.0.1:7900".to_owned())];
        headers.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let target = format!("/2023-03-30{path}");
        self.raw(method, &target, &sign(&key_of(account), method, &target, &headers, body), body).await
    }

    /// Account 1 with a JSON body, or none for null.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Received {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.signed(1, method, path, &[], body.as_bytes()).await
    }

    pub async fn create(&self, name: &str, zip: &[u8]) -> Received {
        self.ask("POST", "/functions", function(name, zip)).await
    }

    /// What is kept of packages: blobs and trees.
    pub async fn kept(&self) -> (usize, usize) {
        (self.blobs.list().await.unwrap().len(), self.unpacker.trees.lock().unwrap().len())
    }
}

pub fn function(name: &str, zip: &[u8]) -> Value {
    json!({"functionName": name, "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": STANDARD.encode(zip)}})
}

/// A machine with Python 3.10 and Node.js 20, without a Java that works.
fn interpreters() -> Interpreters {
    let interpreter = |language, program: &str, standing| Interpreter {
        language,
        program: program.to_owned(),
        home: "/usr".to_owned(),
        standing,
    };
    let usable = |version| Standing::Usable { version };
    Interpreters::new(vec![
        interpreter(Language::Python, "/usr/bin/python3", usable(InterpreterVersion::new(3, 10, 13))),
        interpreter(Language::Node, "/usr/bin/node", usable(InterpreterVersion::new(20, 2, 0))),
        interpreter(Language::Java, "/opt/java/bin/java", Standing::Broken { why: "hangs".to_owned() }),
    ])
}
