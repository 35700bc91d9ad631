//! What a careless or hostile caller sends, on the real platform: the contract's error naming the field, nothing half-created,
//! nothing left on disk, and a server that goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use dunlin_testkit::{Connection, Platform, Response, zip_of};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

/// Asserts the dialect's shape: status, code, both spellings, request id; returns the message.
fn refused(reply: &Response, status: u16, code: &str) -> Result<String> {
    let body = reply.json()?;
    ensure!(reply.status == status && body["Code"] == code, "expected {status} {code}, got {} {body}", reply.status);
    ensure!(body["ErrorCode"] == body["Code"] && body["ErrorMessage"] == body["Message"], "both spellings: {body}");
    let id = reply.header("x-fc-request-id").context("every answer has a request id")?;
    ensure!(body["RequestId"] == id, "one request id: {body} and {id}");
    Ok(body["Message"].as_str().unwrap_or_default().to_owned())
}

fn create(platform: &Platform, body: &[u8]) -> Result<Response> {
    let kind = [("content-type", "application/json; charset=utf-8")];
    platform.api.send("POST", "/2023-03-30/functions", "CreateFunction", &kind, body)
}

/// Everything the platform keeps of packages.
fn kept(platform: &Platform) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut folders = vec![platform.data.join("trees"), platform.data.join("state/blobs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_tree = entry.path().parent().is_some_and(|parent| parent.ends_with("trees"));
            if entry.path().is_dir() && !is_tree {
                folders.push(entry.path());
            } else {
                all.insert(entry.path().display().to_string());
            }
        }
    }
    all
}

fn wrong_members_are_named(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let zip = zip_of(&[("index.py", "def handler(e, c):\n    return e\n")])?;
    let good = json!({"functionName": "bad", "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": zip}});
    let cases: &[(&str, Value, &str)] = &[
        ("functionName", json!(""), "functionName"),
        ("functionName", json!("9x"), "functionName"),
        ("functionName", json!("a/b"), "functionName"),
        ("functionName", json!("..%2f"), "functionName"),
        ("functionName", json!("x".repeat(65)), "functionName"),
        ("functionName", json!("é"), "functionName"),
        ("functionName", json!("a\u{202e}b"), "functionName"),
        ("functionName", json!(7), "functionName"),
        ("runtime", json!("cobol"), "runtime"),
        ("runtime", json!(null), "runtime"),
        ("handler", json!("nodot"), "handler"),
        ("handler", json!("../x.y"), "handler"),
        ("memorySize", json!(-1), "memorySize"),
        ("memorySize", json!(0), "memorySize"),
        ("memorySize", json!(127), "memorySize"),
        ("memorySize", json!(130), "memorySize"),
        ("memorySize", json!(32_832), "memorySize"),
        ("memorySize", json!(2_147_483_648_u64), "memorySize"),
        ("memorySize", json!(9_223_372_036_854_775_808_u64), "memorySize"),
        ("memorySize", json!(128.5), "memorySize"),
        ("memorySize", json!("128"), "memorySize"),
        ("memorySize", json!(true), "memorySize"),
        ("timeout", json!(0), "timeout"),
        ("timeout", json!(86_401), "timeout"),
        ("cpu", json!(17), "cpu"),
        ("cpu", json!(0.01), "cpu"),
        ("diskSize", json!(100), "diskSize"),
        ("instanceConcurrency", json!(201), "instanceConcurrency"),
        ("environmentVariables", json!({"A=": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"FC_X": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"A": "x".repeat(5000)}), "environmentVariables"),
        ("environmentVariables", json!({"A": 1}), "environmentVariables"),
        ("environmentVariables", json!([]), "environmentVariables"),
        ("description", json!("x".repeat(257)), "description"),
        ("tags", json!([{"Key": ""}]), "tags"),
        ("code", json!({}), "code"),
        ("code", json!({"zipFile": "***"}), "zipFile"),
        ("code", json!({"zipFile": ""}), "zipFile"),
        ("code", json!({"zipFile": zip, "checksum": "1"}), "checksum"),
        ("code", json!({"ossBucketName": "b", "ossObjectName": "o"}), "oss"),
    ];
    for (member, value, named) in cases {
        let mut body = good.clone();
        body[*member] = value.clone();
        let reply = create(platform, body.to_string().as_bytes())?;
        let shown: String = value.to_string().chars().take(60).collect();
        let message = refused(&reply, 400, "InvalidArgument").with_context(|| format!("{member} = {shown}"))?;
        ensure!(message.contains(named), "{member} = {shown}: the message does not name {named}: {message}");
    }
    ensure!(kept(platform) == before, "something of a refused function is left on disk");
    Ok(())
}

fn bodies_that_are_not_the_jsons_they_claim_to_be(platform: &Platform) -> Result<()> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", b"".to_vec()),
        ("an array", b"[]".to_vec()),
        ("a string", b"\"x\"".to_vec()),
        ("trailing garbage", b"{} x".to_vec()),
        ("a comment", b"{/* */}".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", b"\xff\xfe{\0}\0".to_vec()),
        ("invalid UTF-8", b"{\"functionName\":\"\xff\"}".to_vec()),
        ("a lone surrogate", br#"{"functionName":"\ud800"}"#.to_vec()),
        ("depth", deep.into_bytes()),
        ("depth in a kept member", format!("{{\"functionName\":\"f\",\"logConfig\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000)).into_bytes()),
        ("a number too large", br#"{"functionName":"f","memorySize":1e400}"#.to_vec()),
        ("truncated", br#"{"functionName":"f","#.to_vec()),
    ];
    for (what, body) in bodies {
        let reply = create(platform, &body)?;
        refused(&reply, 400, "InvalidArgument").context(what)?;
    }
    Ok(())
}

/// A zip whose entries have exactly these names, modes and contents.
fn zip_with(entries: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, bytes) in entries {
        archive.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(*mode))?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// Replaces every `from` by `to` of the same length, in local and central headers alike.
fn renamed(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    for start in 0..=bytes.len().saturating_sub(from.len()) {
        if bytes[start..].starts_with(from) {
            bytes[start..start + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

fn hostile_packages_are_refused_whole(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let good = zip_with(&[("index.py", 0o644, b"def handler(e, c):\n    return e\n")])?;
    let one = |name: &str| zip_with(&[(name, 0o644, b"x")]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 3;
    flipped[middle] ^= 0xff;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not a zip", b"hello".to_vec()),
        ("empty archive", zip_with(&[])?),
        ("truncated", good[..good.len() - 10].to_vec()),
        ("flipped bits", flipped),
        ("prepended data", [b"MZ".as_slice(), &good].concat()),
        ("appended data", [good.as_slice(), b"tail"].concat()),
        ("climbs out", renamed(one("aaaaaa/evil")?, b"aaaaaa/evil", b"../../../ev")),
        ("absolute", renamed(one("aetc/passwd")?, b"aetc/passwd", b"/etc/passwd")),
        ("backslashes", renamed(one("aaaaaaevil")?, b"aaaaaaevil", b"..\\..\\evil")),
        ("duplicate names", renamed(zip_with(&[("aa", 0o644, b"1"), ("ab", 0o644, b"2")])?, b"ab", b"aa")),
        ("a link out", {
            let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            archive.add_symlink("link", "/etc", zip::write::SimpleFileOptions::default())?;
            archive.finish()?.into_inner()
        }),
        ("a file through a link", {
            let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            archive.add_symlink("link", "..", zip::write::SimpleFileOptions::default())?;
            archive.start_file("link/x", zip::write::SimpleFileOptions::default())?;
            archive.finish()?.into_inner()
        }),
    ];
    for (what, zip) in cases {
        let zip = base64::engine::general_purpose::STANDARD.encode(zip);
        let body = json!({"functionName": "hostile-zip", "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": zip}});
        let reply = create(platform, body.to_string().as_bytes())?;
        let message = refused(&reply, 400, "InvalidArgument").context(what)?;
        ensure!(message.contains("zipFile"), "{what}: {message}");
        let get = platform.api.json("GET", "/functions/hostile-zip", "GetFunction", &Value::Null)?;
        refused(&get, 404, "FunctionNotFound").context(what)?;
    }
    ensure!(kept(platform) == before, "left on disk: {:?}", kept(platform).difference(&before).collect::<Vec<_>>());
    Ok(())
}

fn acs_date(offset_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let seconds = i64::try_from(now).expect("fits") + offset_s;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days since 1970, after Howard Hinnant's description.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

fn signatures_are_checked_strictly(platform: &Platform) -> Result<()> {
    let target = "/2023-03-30/functions";
    let signed = |extra: &[(&str, &str)], body: &[u8]| platform.api.sign("GET", target, "ListFunctions", extra, body);
    let send = |headers: &[(String, String)], body: &[u8]| platform.connect()?.request("GET", target, headers, body);
    let forbidden = |reply: Response, what: &str| -> Result<()> {
        ensure!(reply.status == 403 || reply.status == 400, "{what}: {} {}", reply.status, reply.text());
        ensure!(reply.json()?["Code"].is_string() && reply.header("x-fc-request-id").is_some(), "{what}: {}", reply.text());
        Ok(())
    };
    let good = signed(&[], b"");
    ensure!(send(&good, b"")?.status == 200, "a good signature is accepted");
    forbidden(send(&good, b"")?, "a replay")?;
    let unsigned: Vec<_> = good.iter().filter(|(name, _)| name != "authorization").cloned().collect();
    forbidden(send(&unsigned, b"")?, "no signature")?;
    for (what, change) in [
        ("another algorithm", ("ACS3-HMAC-SHA256", "ACS3-HMAC-SM3")),
        ("a truncated signature", ("Signature=", "Signature=0")),
        ("another key", ("Credential=", "Credential=X")),
        ("a header dropped from the list", ("host;", "")),
    ] {
        let mut headers = signed(&[], b"");
        for (name, value) in &mut headers {
            if name == "authorization" {
                *value = value.replacen(change.0, change.1, 1);
            }
        }
        forbidden(send(&headers, b"")?, what)?;
    }
    for offset in [16 * 60, -16 * 60, 86_400 * 400] {
        let date = acs_date(offset);
        forbidden(send(&signed(&[("x-acs-date", &date)], b""), b"")?, &format!("a date {offset} s off"))?;
    }
    let date = acs_date(-600);
    ensure!(send(&signed(&[("x-acs-date", &date)], b""), b"")?.status == 200, "ten minutes of skew are accepted");
    forbidden(send(&signed(&[], b"one"), b"two")?, "another body")?;
    let mut twice = signed(&[], b"");
    twice.push(("x-acs-date".into(), acs_date(0)));
    forbidden(send(&twice, b"")?, "two dates")?;
    Ok(())
}

fn payloads_over_the_limit_are_refused(platform: &Platform) -> Result<()> {
    let reply = platform.api.invoke("echo", &vec![b'x'; (32 << 20) + 1])?;
    ensure!(reply.status == 400, "status {}", reply.status);
    refused(&reply, 400, "EntityTooLarge")?;
    let host = [("host".to_owned(), function_host(platform)?)];
    let mut long = host.to_vec();
    long.push(("x-long".into(), "y".repeat(9 << 10)));
    let reply = platform.connect()?.request("GET", "/", &long, b"")?;
    ensure!(matches!(reply.status, 400 | 431), "a header of 9 KB: {}", reply.status);
    let reply = platform.connect()?.request("GET", &format!("/{}", "p".repeat(5 << 10)), &host, b"")?;
    ensure!(matches!(reply.status, 400 | 414), "a path of 5 KB: {}", reply.status);
    Ok(())
}

fn function_host(platform: &Platform) -> Result<String> {
    let reply = platform.api.json("GET", "/functions/echo/triggers/web", "GetTrigger", &Value::Null)?;
    let url = reply.json()?["httpTrigger"]["urlInternet"].as_str().context("a URL")?.to_owned();
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

fn requests_that_frame_themselves_twice_get_one_answer(platform: &Platform) -> Result<()> {
    let host = function_host(platform)?;
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let cases: Vec<(&str, String)> = vec![
        ("CL.TE", format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("two lengths", format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n{smuggled}")),
        ("a signed length", format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: +0\r\n\r\n{smuggled}")),
        ("an odd coding", format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n{smuggled}")),
        ("a folded header", format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: a\r\n b\r\n\r\n")),
        ("a space before the colon", format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n")),
        ("a NUL in a value", format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n")),
        ("two hosts", format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: other\r\n\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("a bad chunk size", format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n")),
    ];
    for (what, bytes) in cases {
        let mut connection = platform.connect()?;
        connection.send_raw(bytes.as_bytes())?;
        match connection.read_response(false, Instant::now()) {
            Ok(reply) => {
                ensure!((400..500).contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
                ensure!(connection.read_response(false, Instant::now()).is_err(), "{what}: a second answer came");
            }
            // Closed without an answer is as good.
            Err(_) => {}
        }
    }
    Ok(())
}

fn half_open_clients_hinder_nobody(platform: &Platform) -> Result<()> {
    let mut held = Vec::new();
    for n in 0..200 {
        let mut connection = platform.connect()?;
        match n % 3 {
            0 => {}
            1 => connection.send_raw(b"GET / HTTP/1.1\r\nHos")?,
            _ => connection.send_raw(b"POST /2023-03-30/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")?,
        }
        held.push(connection);
    }
    for _ in 0..20 {
        ensure!(platform.api.invoke("echo", b"x")?.text() == "x", "the function still answers");
    }
    drop(held);
    Ok(())
}

fn hostile_answers_cannot_forge_the_platforms(platform: &Platform) -> Result<()> {
    let code = r#"
import json
def handler(event, context):
    return json.dumps(json.loads(json.loads(event)["body"]))
"#;
    platform.api.create("answers", "python3.10", &[("index.py", code)], json!({}))?;
    let host = platform.api.expose("answers")?;
    let ask = |answer: Value| -> Result<Response> {
        let headers = [("host".to_owned(), host.clone()), ("content-type".to_owned(), "application/json".to_owned())];
        Connection::open(platform.address())?.request("POST", "/", &headers, answer.to_string().as_bytes())
    };
    for (what, answer) in [
        ("a split header", json!({"statusCode": 200, "headers": {"x-a": "b\r\nx-evil: 1"}, "body": ""})),
        ("a NUL", json!({"statusCode": 200, "headers": {"x-a": "b\u{0}"}, "body": ""})),
        ("a bad name", json!({"statusCode": 200, "headers": {"x a": "b"}, "body": ""})),
        ("status 999", json!({"statusCode": 999, "body": ""})),
        ("status 0", json!({"statusCode": 0, "body": ""})),
        ("status as text", json!({"statusCode": "teapot", "body": ""})),
        ("bad base64", json!({"statusCode": 200, "isBase64Encoded": true, "body": "***"})),
    ] {
        let reply = ask(answer)?;
        ensure!(reply.status == 502 && reply.json()?["Code"] == "BadResponse", "{what}: {} {}", reply.status, reply.text());
        ensure!(reply.header("x-evil").is_none(), "{what}");
    }
    let reply = ask(json!({"statusCode": 200, "headers": {"X-Fc-Request-Id": "forged", "Transfer-Encoding": "chunked", "Connection": "close", "Content-Length": "1"}, "body": "whole"}))?;
    ensure!(reply.status == 200 && reply.text() == "whole", "{} {}", reply.status, reply.text());
    ensure!(reply.header("x-fc-request-id").is_some_and(|id| id.starts_with("1-")), "the request id was forged");
    Ok(())
}

fn strings_come_back_as_they_were_sent(platform: &Platform) -> Result<()> {
    let naughty = ["<script>alert(1)</script>", "'; DROP TABLE functions;--", "\u{202e}evil", "\u{0}", "𝕳🤷‍♀️", "%s%n", "${jndi:x}", "\u{fffe}", " \t\r\n", "\u{1b}[31m"];
    for (n, text) in naughty.iter().enumerate() {
        let name = format!("naughty-{n}");
        let members = json!({"description": text, "environmentVariables": {"TEXT": text.replace('\0', "")}});
        let created = platform.api.create(&name, "python3.10", &[("index.py", "def handler(e, c):\n    return 'x'\n")], members)?;
        ensure!(created["description"] == *text, "{text:?} came back as {}", created["description"]);
        ensure!(platform.api.invoke(&name, b"")?.text() == "x", "{text:?}");
    }
    Ok(())
}

fn a_hundred_racing_creates_make_one_function(platform: &Platform) -> Result<()> {
    let zip = zip_of(&[("index.py", "def handler(e, c):\n    return 'x'\n")])?;
    let body = json!({"functionName": "raced", "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": zip}}).to_string();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..100).map(|_| scope.spawn(|| create(platform, body.as_bytes()).map(|reply| reply.status))).collect();
        racers.into_iter().map(|racer| racer.join().expect("no panic").unwrap_or(0)).collect()
    });
    let won = statuses.iter().filter(|status| **status == 200).count();
    ensure!(won == 1 && statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    Ok(())
}

type Check = fn(&Platform) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("e01_e02_e25_wrong_members_are_named", wrong_members_are_named),
    ("e03_e04_bodies_that_are_not_the_json_they_claim_to_be", bodies_that_are_not_the_jsons_they_claim_to_be),
    ("e05_e06_payloads_over_the_limit_are_refused", payloads_over_the_limit_are_refused),
    ("e08_e09_requests_that_frame_themselves_twice_get_one_answer", requests_that_frame_themselves_twice_get_one_answer),
    ("e11_e12_e13_signatures_are_checked_strictly", signatures_are_checked_strictly),
    ("e18_a_hundred_racing_creates_make_one_function", a_hundred_racing_creates_make_one_function),
    ("e20_e21_e22_hostile_packages_are_refused_whole", hostile_packages_are_refused_whole),
    ("e33_strings_come_back_as_they_were_sent", strings_come_back_as_they_were_sent),
    ("c56_hostile_answers_cannot_forge_the_platforms", hostile_answers_cannot_forge_the_platforms),
    ("d30_half_open_clients_hinder_nobody", half_open_clients_hinder_nobody),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        let trials = CHECKS.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let platform = Arc::new(Platform::fresh().expect("the platform starts"));
    platform
        .api
        .create("echo", "python3.10", &[("index.py", "def handler(event, context):\n    return event\n")], json!({"timeout": 20, "memorySize": 512}))
        .expect("the function is created");
    platform.api.expose("echo").expect("the trigger is created");
    let trials = CHECKS
        .iter()
        .map(|(name, check)| {
            let platform = Arc::clone(&platform);
            let run = move || {
                check(&platform)?;
                let reply = platform.api.invoke("echo", b"alive")?;
                ensure!(reply.text() == "alive", "the platform went on: {}", reply.text());
                Ok(())
            };
            Trial::test(*name, move || run().map_err(|error: anyhow::Error| format!("{error:#}").into()))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        eprintln!("--- the platform printed:\n{}", platform.printed());
    }
    drop(platform);
    conclusion.exit_code()
}
