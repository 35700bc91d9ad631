//! Calls of one session meet one instance: by each way that calls tell their session, within its limits, until it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::{Connection, Options, Platform, Response, asked, eventually, read_until};
use serde_json::{Value, json};

/// Says who it is and how often it was called, after as long as it is told to take.
const PYTHON: &str = r"
import json, os, time, uuid
me, calls = str(uuid.uuid4()), 0

def handler(event, context):
    global calls
    calls += 1
    try:
        told = json.loads(event)
    except ValueError:
        told = {}
    if told.get('sleep', 0) > 1:
        print('sleeping', flush=True)
    time.sleep(told.get('sleep', 0))
    if told.get('die'):
        os._exit(3)
    return json.dumps({'me': me, 'calls': calls, 'version': os.environ.get('FC_FUNCTION_VERSION', '')})
";

const NODE: &str = r"
const me = require('crypto').randomUUID();
let calls = 0;
exports.handler = async () => ({ me, calls: ++calls });
";

/// A server that speaks both transports of the Model Context Protocol, as far as a platform can tell.
const SERVER: &str = r#"#!/usr/bin/python3
import json, queue, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

me, streams, sessions = str(uuid.uuid4()), {}, set()

class Server(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def say(self, status, value, headers={}):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('content-length', str(len(body)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if urlparse(self.path).path != '/sse':
            return self.say(200, {'me': me})
        session = uuid.uuid4().hex
        streams[session] = queue.Queue()
        self.send_response(200)
        self.send_header('content-type', 'text/event-stream')
        self.send_header('transfer-encoding', 'chunked')
        self.end_headers()
        self.event('endpoint', '/messages?session_id=' + session)
        while True:
            message = streams[session].get()
            self.event('message', json.dumps({'me': me, 'message': message}))
            if message == 'bye':
                self.wfile.write(b'0\r\n\r\n')
                return

    def event(self, name, data):
        text = f'event: {name}\ndata: {data}\n\n'.encode()
        self.wfile.write(f'{len(text):x}\r\n'.encode() + text + b'\r\n')
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('content-length', 0))).decode()
        url = urlparse(self.path)
        if url.path == '/messages':
            session = parse_qs(url.query)['session_id'][0]
            if session not in streams:
                return self.say(404, {'me': me})
            streams[session].put(body)
            return self.say(202, {'me': me})
        if url.path == '/mcp':
            session = self.headers.get('mcp-session-id')
            if session is None and body == 'initialize':
                session = uuid.uuid4().hex
                sessions.add(session)
                return self.say(200, {'me': me}, {'Mcp-Session-Id': session})
            return self.say(200 if session in sessions else 404, {'me': me})
        self.say(200, {'me': me, 'header': self.headers.get('my-session')})

    def do_DELETE(self):
        sessions.discard(self.headers.get('mcp-session-id'))
        self.say(200, {'me': me})

ThreadingHTTPServer(('0.0.0.0', 9000), Server).serve_forever()
"#;

fn affinity(kind: &str, config: &Value) -> Value {
    json!({"memorySize": 128, "timeout": 30, "sessionAffinity": kind, "sessionAffinityConfig": config.to_string()})
}

fn with(mut members: Value, more: &Value) -> Value {
    if let (Some(members), Some(more)) = (members.as_object_mut(), more.as_object()) {
        members.extend(more.clone());
    }
    members
}

fn python(platform: &Platform, name: &str, members: Value) -> Result<()> {
    platform.api.create(name, "python3.10", &[("index.py", PYTHON)], members)?;
    Ok(())
}

fn server(platform: &Platform, name: &str, members: Value) -> Result<String> {
    let members = with(members, &json!({"customRuntimeConfig": {"command": ["/usr/bin/python3", "/code/server.py"]}}));
    platform.api.create(name, "custom", &[("server.py", SERVER)], members)?;
    platform.api.expose(name)
}

/// One call through the API, with what tells its session.
fn call(platform: &Platform, name: &str, qualifier: &str, fields: &[(&str, &str)], event: &Value) -> Result<Response> {
    let target = format!("/2023-03-30/functions/{name}/invocations?qualifier={qualifier}");
    platform.api.send("POST", &target, "InvokeFunction", fields, event.to_string().as_bytes())
}

fn served(reply: &Response) -> Result<String> {
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{}: {}", reply.status, reply.text());
    Ok(reply.header("x-fc-instance-id").context("an answer names its instance")?.to_owned())
}

/// One call of the session `id` of a function whose calls tell it in `my-session`.
fn at(platform: &Platform, name: &str, id: &str) -> Result<String> {
    served(&call(platform, name, "LATEST", &[("my-session", id)], &json!({}))?)
}

fn request(platform: &Platform, host: &str, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Result<Response> {
    let mut headers = vec![("host".to_owned(), host.to_owned())];
    headers.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Connection::open(platform.address())?.request(method, path, &headers, body.as_bytes())
}

fn refused(platform: &Platform, method: &str, path: &str, body: &Value) -> Result<(u16, String)> {
    let reply = platform.api.json(method, path, "Test", body)?;
    let answer = reply.json()?;
    Ok((
        reply.status,
        format!("{}: {}", answer["Code"].as_str().unwrap_or_default(), answer["Message"].as_str().unwrap_or_default()),
    ))
}

fn status(platform: &Platform, name: &str, id: &str) -> Result<String> {
    let session = platform.api.ask("GET", &format!("/functions/{name}/sessions/{id}"), &Value::Null)?;
    Ok(session["sessionStatus"].as_str().unwrap_or_default().to_owned())
}

fn instances(platform: &Platform, name: &str) -> Result<BTreeSet<String>> {
    let listed = platform.api.ask("GET", &format!("/functions/{name}/instances"), &Value::Null)?;
    let listed = listed["instances"].as_array().cloned().unwrap_or_default();
    Ok(listed.iter().filter_map(|instance| Some(instance["instanceId"].as_str()?.to_owned())).collect())
}

fn header_config(more: &Value) -> Value {
    with(json!({"affinityHeaderFieldName": "my-session"}), more)
}

#[test]
fn a_cookie_leads_back_to_the_instance_that_set_it() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "cookie", affinity("GENERATED_COOKIE", &json!({"sessionTTLInSeconds": 100})))?;
    let host = platform.api.expose("cookie")?;
    let mut homes = BTreeMap::new();
    for _ in 0..3 {
        let reply = request(&platform, &host, "GET", "/", &[], "")?;
        let cookie = reply.header("set-cookie").context("a new session has a cookie")?.to_owned();
        let (pair, age) = cookie.split_once("; ").context("it has one attribute")?;
        ensure!(age == "Max-Age=100" && pair.starts_with("x-fc-cookie-session-id="), "{cookie}");
        homes.insert(pair.to_owned(), served(&reply)?);
    }
    ensure!(homes.values().collect::<BTreeSet<_>>().len() == 3, "an instance of a built-in runtime has one: {homes:?}");
    for (cookie, home) in &homes {
        for _ in 0..2 {
            let reply = request(&platform, &host, "GET", "/", &[("cookie", &format!("a=b; {cookie}"))], "")?;
            ensure!(served(&reply)? == *home && reply.header("set-cookie").is_none(), "{home}: {:?}", reply.headers);
        }
        // The API's calls have the same sessions.
        let reply = call(&platform, "cookie", "LATEST", &[("cookie", cookie)], &json!({}))?;
        ensure!(served(&reply)? == *home && reply.json()?["calls"] == 4, "{}", reply.text());
    }
    let stale = request(&platform, &host, "GET", "/", &[("cookie", "x-fc-cookie-session-id=gone")], "")?;
    ensure!(served(&stale).is_ok() && stale.header("set-cookie").is_some(), "one that means nothing is replaced");
    Ok(())
}

#[test]
fn a_header_field_tells_the_session_in_node_and_python_alike() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "python", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    let members = affinity("HEADER_FIELD", &header_config(&json!({})));
    platform.api.create("node", "nodejs20", &[("index.js", NODE)], members)?;
    for name in ["python", "node"] {
        let one = at(&platform, name, "one")?;
        let two = at(&platform, name, "two")?;
        ensure!(one != two, "they are apart");
        for _ in 0..3 {
            ensure!((at(&platform, name, "one")?, at(&platform, name, "two")?) == (one.clone(), two.clone()));
        }
        // Whoever names none gets a name.
        let reply = call(&platform, name, "LATEST", &[], &json!({}))?;
        let id = reply.header("my-session").context("a new session has a name")?.to_owned();
        ensure!(at(&platform, name, &id)? == served(&reply)?);
        let wrong = call(&platform, name, "LATEST", &[("my-session", "no id")], &json!({}))?;
        ensure!(wrong.status == 400 && wrong.text().contains("my-session"), "{}", wrong.text());
    }
    Ok(())
}

#[test]
fn an_instance_has_no_more_sessions_than_it_may_and_calls_of_one_run_side_by_side() -> Result<()> {
    let platform = Platform::fresh()?;
    let config = header_config(&json!({"sessionConcurrencyPerInstance": 2}));
    python(&platform, "pairs", with(affinity("HEADER_FIELD", &config), &json!({"instanceConcurrency": 10})))?;
    let homes: Vec<String> = (0..6).map(|n| at(&platform, "pairs", &format!("s{n}"))).collect::<Result<_>>()?;
    let mut shared: BTreeMap<&String, usize> = BTreeMap::new();
    homes.iter().for_each(|home| *shared.entry(home).or_default() += 1);
    ensure!(shared.len() == 3 && shared.values().all(|sessions| *sessions == 2), "{homes:?}");
    // Many calls at a time, each where its session is.
    thread::scope(|scope| {
        let calls: Vec<_> = (0..30)
            .map(|n| {
                let (platform, home) = (&platform, &homes[n % 6]);
                scope.spawn(move || {
                    let id = format!("s{}", n % 6);
                    let reply = call(platform, "pairs", "LATEST", &[("my-session", &id)], &json!({"sleep": 0.2}))?;
                    ensure!(served(&reply)? == *home);
                    Ok(())
                })
            })
            .collect();
        calls.into_iter().try_for_each(|call| call.join().expect("no panic"))
    })?;
    ensure!(instances(&platform, "pairs")?.len() == 3);
    Ok(())
}

#[test]
fn a_streamable_server_names_its_sessions_and_ends_them() -> Result<()> {
    let platform = Platform::fresh()?;
    let host = server(&platform, "mcp", affinity("MCP_STREAMABLE", &json!({"sessionConcurrencyPerInstance": 1})))?;
    let post = |id: Option<&str>, body: &str| {
        let fields: Vec<_> = id.iter().map(|id| ("mcp-session-id", *id)).collect();
        request(&platform, &host, "POST", "/mcp", &fields, body)
    };
    let mut homes = Vec::new();
    for _ in 0..2 {
        let reply = post(None, "initialize")?;
        let id = reply.header("mcp-session-id").context("the server names it")?.to_owned();
        homes.push((id, served(&reply)?));
    }
    ensure!(homes[0].1 != homes[1].1, "each has an instance");
    for (id, home) in homes.iter().chain(&homes) {
        ensure!(served(&post(Some(id), "call")?)? == *home);
    }
    let unknown = post(Some("nobody"), "call")?;
    ensure!(unknown.status == 404 && unknown.text().contains("SessionNotFound"), "{}", unknown.text());
    let (id, home) = &homes[0];
    let ended = request(&platform, &host, "DELETE", "/mcp", &[("mcp-session-id", id)], "")?;
    ensure!(served(&ended)? == *home, "its own server ends it");
    ensure!(post(Some(id), "call")?.status == 404);
    ensure!(served(&post(None, "initialize")?)? == *home, "its place is free");
    let path = "/functions/mcp/sessions";
    let (code, why) = refused(&platform, "POST", path, &json!({}))?;
    ensure!(code == 400 && why.contains("MCP_STREAMABLE"), "{why}");
    Ok(())
}

#[test]
fn messages_reach_the_instance_that_has_the_sse_connection() -> Result<()> {
    let platform = Platform::fresh()?;
    let host = server(&platform, "sse", affinity("MCP_SSE", &json!({"sessionConcurrencyPerInstance": 1})))?;
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut socket = asked(&platform, &format!("GET /sse HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
        let text = read_until(&mut socket, "\n\n\r\n")?;
        let address = text.lines().find_map(|line| line.strip_prefix("data: ")).context("there is an address")?.to_owned();
        connections.push((socket, address));
    }
    ensure!(instances(&platform, "sse")?.len() == 3);
    for (n, (socket, address)) in connections.iter_mut().enumerate() {
        let reply = request(&platform, &host, "POST", address, &[], &format!("hello {n}"))?;
        ensure!(reply.status == 202, "{}: {}", reply.status, reply.text());
        let heard = read_until(socket, "\n\n\r\n")?;
        let me = reply.json()?["me"].as_str().unwrap_or_default().to_owned();
        ensure!(heard.contains(&format!("hello {n}")) && heard.contains(&me), "{heard}");
    }
    // With its connection a session ends.
    let (mut socket, address) = connections.remove(0);
    request(&platform, &host, "POST", &address, &[], "bye")?;
    read_until(&mut socket, "0\r\n\r\n")?;
    drop(socket);
    eventually("the session is gone", || Ok(request(&platform, &host, "POST", &address, &[], "x")?.status == 404))?;
    Ok(())
}

#[test]
fn sessions_expire_for_want_of_calls_and_when_their_time_is_up() -> Result<()> {
    let platform = Platform::fresh()?;
    let config = header_config(&json!({"sessionIdleTimeoutInSeconds": 1, "sessionConcurrencyPerInstance": 1}));
    python(&platform, "short", affinity("HEADER_FIELD", &config))?;
    at(&platform, "short", "a")?;
    ensure!(status(&platform, "short", "a")? == "Active");
    eventually("it expires", || Ok(status(&platform, "short", "a")? == "Expired"))?;
    at(&platform, "short", "a")?;
    ensure!(status(&platform, "short", "a")? == "Active", "a call of that id begins another one");

    let config = header_config(&json!({"sessionTTLInSeconds": 1, "disableSessionIdReuse": true}));
    python(&platform, "once", affinity("HEADER_FIELD", &config))?;
    at(&platform, "once", "a")?;
    eventually("it expires", || Ok(status(&platform, "once", "a")? == "Expired"))?;
    let reply = call(&platform, "once", "LATEST", &[("my-session", "a")], &json!({}))?;
    ensure!(reply.status == 410 && reply.text().contains("SessionExpired"), "{}: {}", reply.status, reply.text());
    ensure!(at(&platform, "once", "b").is_ok());
    Ok(())
}

#[test]
fn a_session_made_ahead_has_its_instance_and_a_deleted_one_begins_anew() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "ahead", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    let sessions = "/functions/ahead/sessions";
    let made = platform.api.ask(
        "POST",
        sessions,
        &json!({"sessionId": "mine", "sessionTTLInSeconds": 77, "nasConfig": {"userId": 1}}),
    )?;
    ensure!(made["sessionStatus"] == "Active" && made["sessionTTLInSeconds"] == 77 && made["nasConfig"]["userId"] == 1, "{made}");
    ensure!(made["sessionAffinityType"] == "HEADER_FIELD" && made["qualifier"] == "LATEST" && made["functionName"] == "ahead");
    let home = made["containerId"].as_str().context("it has an instance")?.to_owned();
    let reply = call(&platform, "ahead", "LATEST", &[("my-session", "mine")], &json!({}))?;
    ensure!(served(&reply)? == home, "{made} {:?}", reply.headers);
    ensure!(reply.header("server-timing").is_some_and(|timing| timing.contains("load;dur=0.000")), "no start is waited for");
    let changed = platform.api.ask("PUT", &format!("{sessions}/mine"), &json!({"sessionIdleTimeoutInSeconds": 5}))?;
    ensure!(changed["sessionIdleTimeoutInSeconds"] == 5 && changed["sessionTTLInSeconds"] == 77, "{changed}");
    let given = platform.api.ask("POST", sessions, &json!({}))?;
    ensure!(given["sessionId"].as_str().is_some_and(|id| id.len() == 32), "{given}");
    platform.api.ask("DELETE", &format!("{sessions}/mine"), &Value::Null)?;
    ensure!(refused(&platform, "GET", &format!("{sessions}/mine"), &Value::Null)?.0 == 404);
    at(&platform, "ahead", "mine")?;
    ensure!(status(&platform, "ahead", "mine")? == "Active");
    Ok(())
}

#[test]
fn sessions_are_listed_by_pages_and_filters_and_wrong_members_are_named() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "many", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    let sessions = "/functions/many/sessions";
    for n in 0..5 {
        platform.api.ask("POST", sessions, &json!({"sessionId": format!("s{n}")}))?;
    }
    let ids = |page: &Value| -> Vec<String> {
        let listed = page["sessions"].as_array().cloned().unwrap_or_default();
        listed.iter().filter_map(|session| Some(session["sessionId"].as_str()?.to_owned())).collect()
    };
    let list = |query: &str| platform.api.ask("GET", &format!("{sessions}?{query}"), &Value::Null);
    let first = list("limit=3")?;
    let next = first["nextToken"].as_str().context("there is more")?;
    let second = list(&format!("limit=3&nextToken={next}"))?;
    ensure!((ids(&first), ids(&second)) == (vec!["s0".into(), "s1".into(), "s2".into()], vec!["s3".into(), "s4".into()]));
    ensure!(second.get("nextToken").is_none(), "{second}");
    ensure!(ids(&list("sessionId=s3&qualifier=LATEST")?) == ["s3"] && ids(&list("sessionStatus=Expired")?).is_empty());
    platform.api.ask("PUT", &format!("{sessions}/s1/pause"), &Value::Null)?;
    ensure!(ids(&list("sessionStatus=Paused")?) == ["s1"]);
    for (body, member) in [
        (json!({"sessionId": "no id"}), "sessionId"),
        (json!({"sessionTTLInSeconds": 0}), "sessionTTLInSeconds"),
        (json!({"sessionTTLInSeconds": 21_601}), "sessionTTLInSeconds"),
        (json!({"sessionIdleTimeoutInSeconds": -1}), "sessionIdleTimeoutInSeconds"),
        (json!({"sessionTTLInSeconds": "1"}), "sessionTTLInSeconds"),
        (json!({"disableSessionIdReuse": 1}), "disableSessionIdReuse"),
        (json!({"enableAutoPause": "x"}), "enableAutoPause"),
        (json!({"allowInternetAccess": false}), "allowInternetAccess"),
        (json!({"network": {"a": 1}}), "network"),
        (json!({"snapshotId": "s-1"}), "snapshotId"),
        (json!({"nasConfig": 1}), "nasConfig"),
    ] {
        let (code, why) = refused(&platform, "POST", sessions, &body)?;
        ensure!(code == 400 && why.contains(member), "{body}: {code} {why}");
    }
    for (method, path, code, word) in [
        ("POST", sessions.to_owned() + "?qualifier=9", 404, "VersionNotFound"),
        ("GET", sessions.to_owned() + "/absent", 404, "SessionNotFound"),
        ("PUT", sessions.to_owned() + "/absent", 404, "SessionNotFound"),
        ("DELETE", sessions.to_owned() + "/absent", 404, "SessionNotFound"),
        ("PUT", sessions.to_owned() + "/absent/pause", 404, "SessionNotFound"),
        ("PUT", sessions.to_owned() + "/absent/resume", 404, "SessionNotFound"),
        ("PUT", sessions.to_owned() + "/s1/pause?fileSystemOnly=true", 400, "fileSystemOnly"),
        ("GET", sessions.to_owned() + "?sessionStatus=Idle", 400, "sessionStatus"),
        ("GET", sessions.to_owned() + "?limit=0", 400, "limit"),
        ("GET", "/functions/absent/sessions".to_owned(), 404, "FunctionNotFound"),
    ] {
        let body = if method == "POST" || path.ends_with("absent") && method == "PUT" { json!({}) } else { Value::Null };
        let (actual, why) = refused(&platform, method, &path, &body)?;
        ensure!(actual == code && why.contains(word), "{method} {path}: {actual} {why}");
    }
    let (code, why) = refused(&platform, "POST", sessions, &json!({"sessionId": "s0"}))?;
    ensure!(code == 409 && why.starts_with("SessionAlreadyExists"), "{why}");
    python(&platform, "plain", json!({}))?;
    let (code, why) = refused(&platform, "POST", "/functions/plain/sessions", &json!({}))?;
    ensure!(code == 400 && why.contains("sessionAffinity"), "{why}");
    platform.api.ask("DELETE", "/functions/many", &Value::Null)?;
    python(&platform, "many", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    ensure!(ids(&list("")?).is_empty(), "a function's sessions go with it");
    Ok(())
}

/// How many of the platform's cells stand still, in either version of control groups.
fn frozen(platform: &Platform) -> Result<usize> {
    let id = fs::read_to_string(platform.data.join("installation")).context("the installation's id")?;
    let name = format!("dunlin-{}", id.split_whitespace().next().unwrap_or_default());
    let mut found = 0;
    for root in fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
        for cell in fs::read_dir(root.join(&name)).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let says = |file: &str, what: &str| {
                fs::read_to_string(cell.join(file)).is_ok_and(|text| text.lines().any(|line| line == what))
            };
            found += usize::from(says("freezer.state", "FROZEN") || says("cgroup.events", "frozen 1"));
        }
    }
    Ok(found)
}

#[test]
fn a_paused_session_stands_still_and_refuses_calls_until_it_is_resumed() -> Result<()> {
    let platform = Platform::start(&Options { args: vec!["--idle".into(), "run".into()], ..Options::default() })?;
    let config = header_config(&json!({"sessionConcurrencyPerInstance": 2}));
    let host = server(&platform, "pause", affinity("HEADER_FIELD", &config))?;
    let get = |id: &str| request(&platform, &host, "GET", "/", &[("my-session", id)], "");
    let session = |id: &str, then: &str| format!("/functions/pause/sessions/{id}{then}");
    let home = served(&get("a")?)?;
    ensure!(served(&get("b")?)? == home);
    let paused = platform.api.ask("PUT", &session("a", "/pause"), &Value::Null)?;
    ensure!(paused["sessionStatus"] == "Paused" && paused["containerId"] == *home, "{paused}");
    let refused = get("a")?;
    ensure!(refused.status == 409 && refused.text().contains("SessionPaused"), "{}: {}", refused.status, refused.text());
    ensure!(served(&get("b")?)? == home && frozen(&platform)? == 0, "the instance has another one");
    platform.api.ask("PUT", &session("b", "/pause"), &Value::Null)?;
    eventually("its instance stands still", || Ok(frozen(&platform)? == 1))?;
    platform.api.ask("PUT", &session("b", "/resume"), &Value::Null)?;
    eventually("its instance goes on", || Ok(frozen(&platform)? == 0))?;
    ensure!(served(&get("b")?)? == home);
    // One that resumes by itself needs no telling.
    platform.api.ask("PUT", &session("a", ""), &json!({"enableAutoResume": true}))?;
    platform.api.ask("PUT", &session("b", "/pause"), &Value::Null)?;
    eventually("its instance stands still", || Ok(frozen(&platform)? == 1))?;
    ensure!(served(&get("a")?)? == home && status(&platform, "pause", "a")? == "Active");
    Ok(())
}

#[test]
fn an_instance_of_one_session_serves_nobody_else_and_ends_with_it() -> Result<()> {
    let platform = Platform::fresh()?;
    let members =
        with(affinity("HEADER_FIELD", &header_config(&json!({}))), &json!({"instanceIsolationMode": "SESSION_EXCLUSIVE"}));
    python(&platform, "alone", with(members, &json!({"instanceConcurrency": 5})))?;
    let (one, two) = (at(&platform, "alone", "one")?, at(&platform, "alone", "two")?);
    ensure!(one != two && at(&platform, "alone", "one")? == one);
    platform.api.ask("DELETE", "/functions/alone/sessions/one", &Value::Null)?;
    eventually("its instance ends", || Ok(!instances(&platform, "alone")?.contains(&one)))?;
    let three = at(&platform, "alone", "three")?;
    ensure!(![&one, &two].contains(&&three) && at(&platform, "alone", "two")? == two);
    // A call in it ends with it.
    thread::scope(|scope| {
        let cut = scope.spawn(|| call(&platform, "alone", "LATEST", &[("my-session", "two")], &json!({"sleep": 20})));
        let printed =
            || Ok(String::from_utf8_lossy(&platform.cli(&["logs", "alone", "--grep", "sleeping"])?.stdout).contains("sleeping"));
        eventually("it runs", printed)?;
        platform.api.ask("DELETE", "/functions/alone/sessions/two", &Value::Null)?;
        let reply = cut.join().expect("no panic")?;
        ensure!(reply.status == 409 || reply.header("x-fc-error-type").is_some(), "{}: {}", reply.status, reply.text());
        Ok(())
    })
}

#[test]
fn an_instance_of_one_request_serves_one() -> Result<()> {
    let platform = Platform::fresh()?;
    python(
        &platform,
        "single",
        json!({"memorySize": 128, "instanceIsolationMode": "REQUEST_EXCLUSIVE", "instanceConcurrency": 8}),
    )?;
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let reply = call(&platform, "single", "LATEST", &[], &json!({}))?;
        ensure!(reply.json()?["calls"] == 1, "{}", reply.text());
        ensure!(seen.insert(served(&reply)?), "an instance came back");
    }
    eventually("they have ended", || Ok(instances(&platform, "single")?.is_empty()))?;
    Ok(())
}

#[test]
fn a_session_whose_instance_dies_or_is_superseded_finds_another_one() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "mortal", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    let first = at(&platform, "mortal", "a")?;
    let reply = call(&platform, "mortal", "LATEST", &[("my-session", "a")], &json!({"die": true}))?;
    ensure!(reply.header("x-fc-error-type").is_some());
    let second = at(&platform, "mortal", "a")?;
    ensure!(second != first && at(&platform, "mortal", "a")? == second && status(&platform, "mortal", "a")? == "Active");
    platform.api.ask("PUT", "/functions/mortal", &json!({"timeout": 29}))?;
    let third = at(&platform, "mortal", "a")?;
    ensure!(third != second && at(&platform, "mortal", "a")? == third);
    eventually("the old one ends", || Ok(instances(&platform, "mortal")? == BTreeSet::from([third.clone()])))?;
    Ok(())
}

#[test]
fn a_session_stays_with_its_version_while_the_alias_moves() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "alias", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    let publish = || platform.api.ask("POST", "/functions/alias/versions", &json!({}));
    publish()?;
    platform.api.ask("POST", "/functions/alias/aliases", &json!({"aliasName": "live", "versionId": "1"}))?;
    let version = |id: &str| -> Result<(String, String)> {
        let reply = call(&platform, "alias", "live", &[("my-session", id)], &json!({}))?;
        Ok((served(&reply)?, reply.json()?["version"].as_str().unwrap_or_default().to_owned()))
    };
    let old = version("old")?;
    ensure!(old.1 == "1", "{old:?}");
    platform.api.ask("PUT", "/functions/alias", &json!({"description": "two", "timeout": 31}))?;
    publish()?;
    platform.api.ask("PUT", "/functions/alias/aliases/live", &json!({"versionId": "2"}))?;
    ensure!(version("new")?.1 == "2", "a new one begins with the new version");
    ensure!(version("old")? == old, "an old one stays");
    // Shares are for new sessions.
    platform.api.ask(
        "PUT",
        "/functions/alias/aliases/live",
        &json!({"versionId": "2", "additionalVersionWeight": {"1": 0.5}}),
    )?;
    for n in 0..4 {
        let id = format!("s{n}");
        let home = version(&id)?;
        for _ in 0..4 {
            ensure!(version(&id)? == home, "{id} {home:?}");
        }
    }
    let listed = platform.api.ask("GET", "/functions/alias/sessions?qualifier=live", &Value::Null)?;
    ensure!(listed["sessions"].as_array().is_some_and(|all| all.len() == 6), "{listed}");
    Ok(())
}

#[test]
fn the_command_line_shows_and_changes_sessions() -> Result<()> {
    let platform = Platform::fresh()?;
    python(&platform, "cli", affinity("HEADER_FIELD", &header_config(&json!({}))))?;
    let cli = |args: &[&str]| -> Result<(i32, String, String)> {
        let output = platform.cli(args)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr)))
    };
    let (code, out, err) = cli(&["session", "create", "cli", "mine", "--ttl", "50"])?;
    ensure!(code == 0 && out.trim() == "mine", "{out} {err}");
    let (code, out, _) = cli(&["session", "ls", "cli"])?;
    ensure!(code == 0 && out.contains("mine") && out.contains("Active") && out.contains("50 s"), "{out}");
    let (code, out, _) = cli(&["session", "ls", "cli", "--json"])?;
    ensure!(code == 0 && serde_json::from_str::<Value>(&out)?[0]["sessionTTLInSeconds"] == 50, "{out}");
    ensure!(cli(&["session", "set", "cli", "mine", "--idle", "9", "--auto-resume", "true"])?.0 == 0);
    ensure!(cli(&["session", "pause", "cli", "mine"])?.0 == 0);
    let (_, out, _) = cli(&["session", "get", "cli", "mine"])?;
    let shown: Value = serde_json::from_str(&out)?;
    ensure!(
        shown["sessionStatus"] == "Paused" && shown["sessionIdleTimeoutInSeconds"] == 9 && shown["enableAutoResume"] == true,
        "{out}"
    );
    ensure!(cli(&["session", "resume", "cli", "mine"])?.0 == 0);
    ensure!(cli(&["session", "rm", "cli", "mine", "--yes"])?.0 == 0);
    let (code, _, err) = cli(&["session", "get", "cli", "mine"])?;
    ensure!(code == 3 && err.contains("mine"), "{code} {err}");
    Ok(())
}
