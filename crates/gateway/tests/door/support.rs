//! A door with a scripted house behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_auth::{SigningKey, Verifier, system_clock};
use dunlin_gateway::{Body, Calls, Closed, Config, ControlPlane, Doors, Listener, Status, serve};
use dunlin_invoke::{Refusal, Reply, SessionMark};
use dunlin_model::{
    AccessKeyId, AccountId, AccountScope, CodePackage, Crc64, Digest, ErrorType, Function, FunctionError, FunctionKey,
    FunctionPatch, HttpTriggerConfig, InstanceId, Invocation, Limits, Outcome, Phases, Qualifier, SessionAsk, Target, Trigger,
};
use dunlin_runtime::{Answer, Payload};
use dunlin_store::{AccessKey, Memory, Store};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

/// What the scripted function does with a call.
pub(crate) enum Script {
    /// Answers every event with this value.
    Value(&'static str),
    /// Fails every call.
    Fail,
    /// Refuses every call.
    Refuse(fn() -> Refusal),
    /// Answers a request that passes through with its own body and this response head.
    Echo(fn() -> http::response::Builder),
    /// Says that it was started, and never ends.
    Hang,
}

/// What a call brought.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) invocation: Invocation,
    pub(crate) event: Bytes,
    pub(crate) head: Option<(http::Method, http::Uri, http::HeaderMap)>,
}

pub(crate) struct House {
    script: Script,
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// One permit for each call that was started.
    pub(crate) started: Semaphore,
    /// One permit for each call that was dropped before its end.
    pub(crate) dropped: Arc<Semaphore>,
    /// What the control plane was asked.
    pub(crate) api: Mutex<Vec<String>>,
}

struct Dropped(Arc<Semaphore>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[async_trait]
impl Calls for House {
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal> {
        let (event, head, body) = match payload {
            Payload::Event(event) => (event, None, None),
            Payload::Streaming(event, body) => (event, None, Some(body)),
            Payload::Http(request) => {
                let (head, body) = request.into_parts();
                (Bytes::new(), Some((head.method, head.uri, head.headers)), Some(body))
            }
        };
        self.seen.lock().expect("no test panics while it holds this").push(Seen { invocation: invocation.clone(), event, head });
        self.started.add_permits(1);
        let result = match &self.script {
            Script::Value(value) => Ok(Answer::Event(Bytes::from_static(value.as_bytes()))),
            Script::Fail => Err(FunctionError::worded(ErrorType::UnhandledInvocationError, Some("Exception"), "oops")),
            Script::Refuse(refusal) => return Err(refusal()),
            Script::Echo(head) => {
                let body = match body.expect("the case passes through").collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(error) => return Err(Refusal::BadResponse(error.to_string())),
                };
                let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
                Ok(Answer::Http(head().body(body).expect("the case's head is one")))
            }
            Script::Hang => {
                let _dropped = Dropped(Arc::clone(&self.dropped));
                std::future::pending::<()>().await;
                unreachable!("nothing ends this call");
            }
        };
        Ok(Reply {
            result,
            outcome: Outcome::Succeeded,
            instance: Some(InstanceId::random()),
            version: "LATEST".into(),
            checksum: Crc64(7),
            phases: Phases { handler: Duration::from_micros(1500), ..Phases::default() },
            memory_peak_bytes: 10 << 20,
            log_tail: (invocation.log_type == dunlin_model::LogType::Tail).then(|| b"the log".to_vec()),
            session: (invocation.session == Some(SessionAsk::Begin))
                .then(|| SessionMark::Cookie { id: "begun".parse().expect("an id"), max_age_s: 60 }),
        })
    }

    fn session_target(&self, _: &FunctionKey, _: &Qualifier, _: &SessionAsk) -> Option<Target> {
        None
    }
}

#[async_trait]
impl ControlPlane for House {
    async fn handle(&self, request: Request<Incoming>, _peer: IpAddr) -> Response<Body> {
        let line = format!("{} {}", request.method(), request.uri());
        let body = match request.into_body().collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => "broken".into(),
        };
        self.api.lock().expect("no test panics while it holds this").push(format!("{line} {body}").trim_end().to_owned());
        let status = if body == "broken" { 400 } else { 200 };
        let body = Full::new(Bytes::from_static(b"api")).map_err(|never| match never {}).boxed_unsync();
        Response::builder().status(status).body(body).expect("this is a response")
    }
}

impl Status for House {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

/// A running door. `url` triggers go to the scripted function.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) house: Arc<House>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Closed>,
}

/// The prefix of the function URL every door has.
pub(crate) const HOST: &str = "key-f.fn.localhost";
pub(crate) const ACCOUNT: &str = "1000000000000001";

pub(crate) fn key() -> SigningKey {
    SigningKey { id: "test-key".into(), secret: "test-secret".into() }
}

/// Opens a door: one function with `runtime`, one trigger with `trigger_config`.
pub(crate) async fn open_with(script: Script, runtime: &str, trigger_config: &str, config: Config, limits: Limits) -> Door {
    let store = Arc::new(Memory::new());
    let account: AccountId = ACCOUNT.parse().expect("an account");
    let scope = AccountScope::verified(account.clone());
    let function_key = scope.function("f".parse().expect("a name"));
    let patch = FunctionPatch {
        function_name: Some("f".into()),
        runtime: Some(runtime.into()),
        handler: Some("index.handler".into()),
        ..FunctionPatch::default()
    };
    let function = Function {
        config: patch.create(&Limits::default()).expect("a function"),
        code: CodePackage { digest: Digest::of(b"zip"), checksum: Crc64::of(b"zip"), size: 3 },
        function_id: "id".into(),
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    };
    store.create_function(&function_key, &function, 10).await.expect("an empty store takes a function");
    let trigger = Trigger {
        name: "http".parse().expect("a name"),
        trigger_id: "trigger-1".into(),
        description: String::new(),
        qualifier: "LATEST".into(),
        http: HttpTriggerConfig::parse(trigger_config).expect("the case's trigger"),
        config_text: trigger_config.into(),
        url_prefix: "key-f".into(),
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    };
    let trigger_key = scope.trigger("f".parse().expect("a name"), "http".parse().expect("a name"));
    store.create_trigger(&trigger_key, &trigger, 10).await.expect("a new function takes a trigger");
    for (id, account) in [("test-key", account), ("other-key", "1000000000000002".parse().expect("an account"))] {
        let id: AccessKeyId = id.parse().expect("a key id");
        store.put_access_key(&AccessKey { id, account, secret: "test-secret".into() }).await.expect("a store takes keys");
    }
    let store: Arc<dyn Store> = store;
    let verifier =
        Verifier::open(Arc::clone(&store), dunlin_auth::Config::default(), system_clock()).await.expect("no nonces yet");
    let house = Arc::new(House {
        script,
        seen: Mutex::default(),
        started: Semaphore::new(0),
        dropped: Arc::new(Semaphore::new(0)),
        api: Mutex::default(),
    });
    let doors = Doors {
        api: Arc::clone(&house) as _,
        calls: Arc::clone(&house) as _,
        verifier,
        store,
        status: Arc::clone(&house) as _,
        outbound: dunlin_outbound::Outbound::new(false),
        limits,
        domain: "localhost".into(),
        names: Vec::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel picks a port");
    let address = listener.local_addr().expect("a bound listener has one");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(serve(vec![Listener { socket: listener, is_tls: false }], doors, config, async {
        let _ = stopped.await;
    }));
    Door { address, house, stop, running }
}

pub(crate) const ANYBODY: &str = r#"{"authType":"anonymous","methods":["GET","HEAD","POST","PUT","DELETE","PATCH","OPTIONS"]}"#;

/// A door for everybody with default limits.
pub(crate) async fn open(script: Script, runtime: &str) -> Door {
    open_with(script, runtime, ANYBODY, Config::default(), Limits::default()).await
}

impl Door {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the door is open")
    }

    /// Sends `bytes` on a connection of its own and reads to the end of it, which the case's door must bring about.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The door may close before it has read everything; the answer is what counts.
        let _ = socket.write_all(bytes).await;
        read_to_end(&mut socket).await
    }

    /// Sends one request to the function URL and reads its answer.
    pub(crate) async fn call(&self, line: &str, headers: &str, body: &str) -> Answered {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{line} HTTP/1.1\r\nhost: {HOST}\r\n{headers}{length}connection: close\r\n\r\n{body}");
        Answered::parse(&self.exchange(request.as_bytes()).await)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.house.seen.lock().expect("no test panics while it holds this").clone()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.house.api.lock().expect("no test panics while it holds this").clone()
    }

    /// Closes the door and waits until the last connection is gone.
    pub(crate) async fn close(self) -> Closed {
        let _ = self.stop.send(());
        self.running.await.expect("the door does not panic")
    }

    pub(crate) fn begin_to_close(self) -> JoinHandle<Closed> {
        let _ = self.stop.send(());
        self.running
    }
}

pub(crate) async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), async {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = socket.read(&mut piece).await {
            bytes.extend_from_slice(&piece[..read]);
        }
    });
    assert!(read.await.is_ok(), "the door kept the connection open after {:?}", String::from_utf8_lossy(&bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One response, taken apart.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
        let headers =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { status: status.unwrap_or_else(|| panic!("no status: {head:?}")), headers, body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        assert_eq!(body["RequestId"].as_str(), self.header("x-fc-request-id"), "{self:?}");
        body["Code"].as_str().unwrap_or_default().to_owned()
    }
}
