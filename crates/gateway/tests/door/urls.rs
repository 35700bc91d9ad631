//! Function URLs, as a caller and as a function sees them.

use std::time::Duration;

use dunlin_auth::{SigningKey, sign};
use dunlin_gateway::Config;
use dunlin_invoke::{Limit, Refusal, Throttled};
use dunlin_model::{Limits, LogType, Origin};
use http::Response;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, ANYBODY, Answered, Door, HOST, Script, key, open, open_with};

const OWNER: &str = r#"{"methods":["GET","POST"]}"#;

async fn open_for(trigger: &str, script: Script) -> Door {
    open_with(script, "python3.10", trigger, Config::default(), Limits::default()).await
}

fn event(door: &Door) -> Value {
    serde_json::from_slice(&door.seen()[0].event).expect("an event is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_built_in_runtime_gets_the_request_as_an_event() {
    let door = open(Script::Value(r#"{"statusCode":201,"headers":{"x-a":"b"},"body":"hi"}"#), "python3.10").await;
    let answered = door
        .call(
            "POST /a%20b/c?q=1&q=2&r=%2F",
            "x-one: 1\r\nx-one: 2\r\nuser-agent: test\r\ncontent-type: text/plain\r\nx-fc-forged: 1\r\n",
            "body",
        )
        .await;
    assert_eq!((answered.status, answered.body.as_str()), (201, "hi"));
    assert_eq!(answered.header("x-a"), Some("b"));
    assert_eq!(answered.header("x-fc-invocation-duration"), Some("1.50"));
    assert_eq!(answered.header("x-fc-max-memory-usage"), Some("10.00"));
    assert!(answered.header("x-fc-instance-id").is_some_and(|id| id.starts_with("c-")));
    assert!(answered.header("server-timing").is_some_and(|timing| timing.contains("handler;dur=1.500")));

    let mut event = event(&door);
    let context = event["requestContext"].take();
    assert_eq!(
        event,
        json!({
            "version": "v1",
            "rawPath": "/a%20b/c",
            "body": "body",
            "isBase64Encoded": false,
            "headers": {"Host": HOST, "X-One": "1,2", "User-Agent": "test", "Content-Type": "text/plain", "Content-Length": "4"},
            "queryParameters": {"q": "1,2", "r": "/"},
            "requestContext": null,
        })
    );
    assert_eq!(context["accountId"], ACCOUNT);
    assert_eq!((context["domainName"].as_str(), context["domainPrefix"].as_str()), (Some(HOST), Some("key-f")));
    assert_eq!(
        context["http"],
        json!({"method": "POST", "path": "/a b/c", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"})
    );
    assert_eq!(context["requestId"].as_str(), answered.header("x-fc-request-id"));
    assert!(context["timeEpoch"].as_str().is_some_and(|ms| ms.len() == 13));
    assert!(context["time"].as_str().is_some_and(|time| time.len() == 20 && time.ends_with('Z')));
    let invocation = &door.seen()[0].invocation;
    assert_eq!((invocation.origin, invocation.trigger.as_deref()), (Origin::Http, Some("http")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_body_arrives_as_base64() {
    let door = open(Script::Value("{}"), "python3.10").await;
    door.call("POST /", "content-type: image/png\r\n", "\u{1}\u{2}").await;
    let event = event(&door);
    assert_eq!((event["body"].as_str(), event["isBase64Encoded"].as_bool()), (Some("AQI="), Some(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_request_is_answered_without_a_body() {
    let door = open(Script::Value(r#"{"statusCode":200,"body":"four"}"#), "python3.10").await;
    let answered = door.call("HEAD /", "", "").await;
    assert_eq!((answered.status, answered.header("content-length"), answered.body.as_str()), (200, Some("4"), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_function_is_a_bad_gateway_with_its_error() {
    let door = open(Script::Fail, "python3.10").await;
    let answered = door.call("GET /", "", "").await;
    assert_eq!((answered.status, answered.header("x-fc-error-type")), (502, Some("UnhandledInvocationError")));
    assert_eq!(answered.body, r#"{"errorMessage":"oops","errorType":"Exception"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_answer_is_a_bad_response_that_still_says_where_it_ran() {
    let door = open(Script::Value(r#"{"statusCode":200,"headers":{"a":"b\r\nx-forged: 1"}}"#), "python3.10").await;
    let answered = door.call("GET /", "", "").await;
    assert_eq!((answered.status, answered.code().as_str()), (502, "BadResponse"));
    assert!(answered.header("x-fc-instance-id").is_some() && answered.header("x-forged").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_the_contracts_codes() {
    fn throttled(limit: Limit) -> Refusal {
        Refusal::Throttled(Throttled::Hopeless { limit, expected: Duration::from_secs(7) })
    }
    for (refusal, status, code, retry_after) in [
        ((|| Refusal::FunctionNotFound) as fn() -> Refusal, 404, "FunctionNotFound", None),
        (|| Refusal::RuntimeExited("x".into()), 412, "CAExited", None),
        (|| Refusal::ShuttingDown, 503, "ResourceThrottled", Some("1")),
        (|| throttled(Limit::Account(3)), 429, "ResourceExhausted", Some("7")),
        (|| throttled(Limit::Node), 503, "ResourceThrottled", Some("7")),
        (|| Refusal::Platform("a secret path".into()), 500, "InternalServerError", None),
    ] {
        let door = open(Script::Refuse(refusal), "python3.10").await;
        let answered = door.call("GET /", "", "").await;
        assert_eq!((answered.status, answered.code().as_str()), (status, code));
        assert_eq!(answered.header("retry-after"), retry_after);
        assert!(!answered.body.contains("secret"), "{answered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_or_not_served_never_reaches_the_function() {
    let limits = Limits { payload_bytes_max: 8, ..Limits::default() };
    let door =
        open_with(Script::Value("{}"), "python3.10", r#"{"authType":"anonymous","methods":["POST"]}"#, Config::default(), limits)
            .await;
    let headers = format!("x: {}\r\n", "y".repeat(9000));
    let long = format!("POST /{}", "x".repeat(5000));
    for (line, headers, body, status, code) in [
        ("GET /", "", "", 405, "MethodNotAllowed"),
        ("POST /", headers.as_str(), "", 400, "InvalidArgument"),
        (long.as_str(), "", "", 400, "InvalidArgument"),
        ("POST /", "", "nine byte", 400, "InvalidArgument"),
        ("POST /", "x-fc-invocation-type: Async\r\n", "", 400, "InvalidArgument"),
        ("POST /", "x-fc-invocation-type: Maybe\r\n", "", 400, "InvalidArgument"),
        ("POST /", "x-fc-log-type: All\r\n", "", 400, "InvalidArgument"),
        ("POST /%zz", "", "", 400, "InvalidArgument"),
        ("POST /%00", "", "", 400, "InvalidArgument"),
    ] {
        let answered = door.call(line, headers, body).await;
        assert_eq!((answered.status, answered.code().as_str()), (status, code), "{line} {headers}");
    }
    let chunked = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n9\r\nnine byte\r\n0\r\n\r\n");
    let answered = Answered::parse(&door.exchange(chunked.as_bytes()).await);
    assert_eq!((answered.status, answered.code().as_str()), (400, "InvalidArgument"));
    assert!(door.seen().is_empty());
    assert_eq!(door.call("POST /", "", "8 bytes!").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_or_unknown_url_answers_nobody() {
    let door = open_for(r#"{"authType":"anonymous","methods":["GET"],"disableURLInternet":true}"#, Script::Value("{}")).await;
    let answered = door.call("GET /", "", "").await;
    assert_eq!((answered.status, answered.code().as_str()), (403, "AccessDenied"));
    let text = door.exchange(b"GET / HTTP/1.1\r\nhost: other.fn.localhost\r\nconnection: close\r\n\r\n").await;
    let answered = Answered::parse(&text);
    assert_eq!((answered.status, answered.code().as_str()), (404, "TriggerNotFound"));
    assert!(door.seen().is_empty());
}

/// A signed request as text, with `body` sent whatever was signed.
fn signed(key: &SigningKey, signed_body: &str, body: &str) -> String {
    let headers = [("host".to_owned(), HOST.to_owned()), ("x-fc-log-type".to_owned(), "Tail".to_owned())];
    let headers = sign(key, "POST", "/a%20b?c=d", &headers, signed_body.as_bytes());
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST /a%20b?c=d HTTP/1.1\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_for_signed_callers_lets_only_the_owner_in() {
    for runtime in ["python3.10", "custom"] {
        let script = if runtime == "custom" { Script::Echo(Response::builder) } else { Script::Value("{}") };
        let door = open_with(script, runtime, OWNER, Config::default(), Limits::default()).await;
        let call = async |request: String| Answered::parse(&door.exchange(request.as_bytes()).await);
        let good = signed(&key(), "hi", "hi");
        assert_eq!(call(good.clone()).await.status, 200, "{runtime}");
        assert_eq!(door.seen()[0].invocation.log_type, LogType::Tail);
        let replayed = call(good).await;
        assert_eq!((replayed.status, replayed.code().as_str()), (403, "SignatureNonceUsed"), "{runtime}");
        let unsigned = door.call("POST /", "", "hi").await;
        assert_eq!((unsigned.status, unsigned.code().as_str()), (403, "AccessDenied"), "{runtime}");
        for (id, secret, code) in [
            ("test-key", "wrong", "SignatureNotMatch"),
            ("no-such-key", "x", "InvalidAccessKeyID"),
            ("other-key", "test-secret", "AccessDenied"),
        ] {
            let refused = call(signed(&SigningKey { id: id.into(), secret: secret.into() }, "hi", "hi")).await;
            assert_eq!((refused.status, refused.code().as_str()), (403, code), "{runtime} {id}");
        }
        assert_eq!(door.seen().len(), 1, "{runtime}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_not_signed_is_never_a_whole_body() {
    let door = open_for(OWNER, Script::Value("{}")).await;
    let refused = Answered::parse(&door.exchange(signed(&key(), "hi", "ho").as_bytes()).await);
    assert_eq!((refused.status, refused.code().as_str()), (403, "SignatureNotMatch"));
    assert!(door.seen().is_empty());
    // A custom runtime has the head already; its body ends with an error instead of an end.
    let door = open_with(Script::Echo(Response::builder), "custom", OWNER, Config::default(), Limits::default()).await;
    let refused = Answered::parse(&door.exchange(signed(&key(), "hi", "ho").as_bytes()).await);
    assert_eq!(refused.status, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_tail_is_for_signed_callers() {
    let door = open(Script::Value("{}"), "python3.10").await;
    let answered = door.call("GET /", "x-fc-log-type: Tail\r\n", "").await;
    assert_eq!((answered.status, answered.header("x-fc-log-result")), (200, None));
    let door = open_for(OWNER, Script::Value("{}")).await;
    let answered = Answered::parse(&door.exchange(signed(&key(), "", "").as_bytes()).await);
    assert_eq!(answered.header("x-fc-log-result"), Some("dGhlIGxvZw=="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_runtime_gets_the_request_itself() {
    fn head() -> http::response::Builder {
        let reserved =
            [("x-fc-request-id", "forged"), ("connection", "x-hop"), ("x-hop", "1"), ("server", "s"), ("keep-alive", "1")];
        let cookies = [("set-cookie", "a=b"), ("set-cookie", "c=d; Domain=localhost"), ("x-own", "kept")];
        reserved.into_iter().chain(cookies).fold(Response::builder().status(418), |head, (name, value)| head.header(name, value))
    }
    let door = open_with(Script::Echo(head), "custom", ANYBODY, Config::default(), Limits::default()).await;
    let answered =
        door.call("PUT //a/../b%2Fc?d=%20e+f", "x-fc-account-id: forged\r\nte: trailers\r\nx-own: 1\r\n", "body").await;
    assert_eq!((answered.status, answered.body.as_str()), (418, "body"));
    let (method, uri, headers) = door.seen()[0].head.clone().expect("it passed through");
    assert_eq!((method.as_str(), uri.to_string().as_str()), ("PUT", "//a/../b%2Fc?d=%20e+f"));
    assert!(
        headers.contains_key("x-own")
            && !headers.contains_key("x-fc-account-id")
            && !headers.contains_key("te")
            && !headers.contains_key("connection")
    );
    assert_ne!(answered.header("x-fc-request-id"), Some("forged"));
    assert_eq!(answered.header("x-own"), Some("kept"));
    let cookies: Vec<_> =
        answered.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str()).collect();
    assert_eq!(cookies, ["a=b"]);
    for name in ["x-hop", "server", "keep-alive", "x-fc-invocation-duration", "x-fc-max-memory-usage"] {
        assert_eq!(answered.header(name), None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_runtimes_impossible_status_is_a_bad_response() {
    let door =
        open_with(Script::Echo(|| Response::builder().status(999)), "custom", ANYBODY, Config::default(), Limits::default())
            .await;
    let answered = door.call("GET /", "", "").await;
    assert_eq!((answered.status, answered.code().as_str()), (502, "BadResponse"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cross_origin_rules_are_the_platforms_to_answer() {
    let trigger = r#"{"authType":"function","methods":["GET"],"corsConfig":{"allowOrigins":["https://a.example"],"allowMethods":["GET"],"allowHeaders":["x-one"],"maxAge":9}}"#;
    let door = open_for(trigger, Script::Value("{}")).await;
    let asked = "origin: https://a.example\r\naccess-control-request-method: GET\r\naccess-control-request-headers: X-One\r\n";
    let preflight = door.call("OPTIONS /", asked, "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET"));
    // A script must be able to read why it was refused.
    let refused = door.call("GET /", "origin: https://a.example\r\n", "").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, Some("https://a.example")));
    assert_eq!(door.call("OPTIONS /", "", "").await.status, 405);
    assert!(door.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_door_has_its_own_names() {
    let door = open(Script::Value("{}"), "python3.10").await;
    let port = door.address.port();
    for (request, status) in [
        ("GET /-/ready HTTP/1.1\r\nhost: localhost".to_owned(), 200),
        (format!("GET /-/metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}"), 200),
        ("POST /-/ready HTTP/1.1\r\nhost: localhost".to_owned(), 405),
        ("GET /-/ready HTTP/1.1\r\nhost: evil.example".to_owned(), 404),
        ("GET /-/ready HTTP/1.1\r\nhost: 127.0.0.2".to_owned(), 404),
        ("GET /2023-03-30/functions HTTP/1.1\r\nhost: evil.example".to_owned(), 404),
        ("GET /2023-03-30/functions HTTP/1.1\r\nhost: localhost".to_owned(), 200),
        ("GET /x HTTP/1.1\r\nhost: evil.example\r\nx-acs-action: ListFunctions".to_owned(), 200),
        ("GET /-/code/t HTTP/1.1\r\nhost: localhost".to_owned(), 200),
        // A function's host decides before a signature does.
        (format!("GET /2023-03-30/functions HTTP/1.1\r\nhost: {HOST}\r\nx-acs-action: ListFunctions"), 200),
    ] {
        let text = door.exchange(format!("{request}\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(Answered::parse(&text).status, status, "{request}");
    }
    assert_eq!(door.asked(), ["GET /2023-03-30/functions", "GET /x", "GET /-/code/t"]);
    assert_eq!(door.seen().len(), 1);
}
