//! Functions that come and go, and races between those who make them.

use std::thread;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, Response, zip_of};
use serde_json::{Value, json};

use crate::{create, refused};

pub(crate) fn a_hundred_racing_creates_make_one_function(platform: &Platform) -> Result<()> {
    let zip = zip_of(&[("index.py", "def handler(e, c):\n    return 'x'\n")])?;
    let body = json!({"functionName": "raced", "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": zip}})
        .to_string();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let racers: Vec<_> =
            (0..100).map(|_| scope.spawn(|| create(platform, body.as_bytes()).map(|reply| reply.status))).collect();
        racers.into_iter().map(|racer| racer.join().expect("no panic").unwrap_or(0)).collect()
    });
    let won = statuses.iter().filter(|status| **status == 200).count();
    ensure!(won == 1 && statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    Ok(())
}

pub(crate) fn racing_updates_lose_nothing(platform: &Platform) -> Result<()> {
    platform.api.create(
        "updated",
        "python3.10",
        &[("index.py", "def handler(e, c):\n    return 'x'\n")],
        json!({"description": "none"}),
    )?;
    let update = |n: usize| -> Result<(String, Response)> {
        let description = format!("writer {n}");
        let reply = platform.api.json("PUT", "/functions/updated", "UpdateFunction", &json!({"description": description}))?;
        Ok((description, reply))
    };
    let replies: Vec<_> = thread::scope(|scope| {
        let racers: Vec<_> = (0..100).map(|n| scope.spawn(move || update(n))).collect();
        racers.into_iter().map(|racer| racer.join().expect("no panic")).collect::<Result<_>>()
    })?;
    let mut won = Vec::new();
    for (description, reply) in &replies {
        if reply.status == 200 {
            ensure!(reply.json()?["description"] == *description, "{description} was told {}", reply.text());
            won.push(description.as_str());
        } else {
            refused(reply, 409, "ConcurrentUpdateError")?;
        }
    }
    let last = platform.api.json("GET", "/functions/updated", "GetFunction", &Value::Null)?.json()?;
    ensure!(won.iter().any(|description| last["description"] == *description), "{} is nobody's who won", last["description"]);
    Ok(())
}

pub(crate) fn pages_are_asked_for_in_bounds_and_with_our_tokens(platform: &Platform) -> Result<()> {
    for n in 0..3 {
        platform.api.create(
            &format!("paged-{n}"),
            "python3.10",
            &[("index.py", "def handler(e, c):\n    return 'x'\n")],
            json!({}),
        )?;
    }
    let list = |query: &str| platform.api.json("GET", &format!("/functions?{query}"), "ListFunctions", &Value::Null);
    for limit in [
        "0",
        "-1",
        "101",
        "1000000000",
        "2147483649",
        "9223372036854775808",
        "18446744073709551617",
        "1.5",
        "x",
        "1e1",
        "%2B1",
        "0x1",
        "%00",
        "%D9%A1",
    ] {
        let message =
            refused(&list(&format!("limit={limit}"))?, 400, "InvalidArgument").with_context(|| format!("limit={limit}"))?;
        ensure!(message.contains("limit"), "limit={limit}: {message}");
    }
    refused(&list("limit=1&limit=2")?, 400, "InvalidArgument").context("two limits")?;
    refused(&list("prefix=%ff")?, 400, "InvalidArgument").context("a prefix that is no UTF-8")?;
    // What cannot be read in one way only cannot be signed either.
    refused(&list("prefix=%")?, 403, "SignatureNotMatch").context("a broken escape")?;
    let first = list("prefix=paged-&limit=2")?.json()?;
    ensure!(first["functions"].as_array().map(Vec::len) == Some(2), "{first}");
    let token = first["nextToken"].as_str().context("a token")?.to_owned();
    let second = list(&format!("prefix=paged-&limit=2&nextToken={}", escaped(&token)))?.json()?;
    ensure!(
        second["functions"][0]["functionName"] == "paged-2" && second["nextToken"].as_str().unwrap_or_default().is_empty(),
        "{second}"
    );
    let mut forged: Vec<String> = vec![
        "x".into(),
        "paged-0".into(),
        "AAAA".into(),
        token.repeat(2),
        token[1..].to_owned(),
        "A".repeat(4000),
        "\u{0}".into(),
        "../x".into(),
    ];
    for at in 0..token.len() {
        let flipped = if &token[at..=at] == "A" { "B" } else { "A" };
        forged.push(format!("{}{flipped}{}", &token[..at], &token[at + 1..]));
    }
    for forged in forged {
        let message = refused(&list(&format!("nextToken={}", escaped(&forged)))?, 400, "InvalidArgument")
            .with_context(|| forged.clone())?;
        ensure!(message.contains("nextToken"), "{forged}: {message}");
    }
    // A token of one listing is none of another's.
    let reply = platform.api.json(
        "GET",
        &format!("/functions/echo/triggers?nextToken={}", escaped(&token)),
        "ListTriggers",
        &Value::Null,
    )?;
    ensure!(refused(&reply, 400, "InvalidArgument")?.contains("nextToken"), "{}", reply.text());
    Ok(())
}

/// Every byte that is not a letter or a digit, escaped.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(crate) fn a_function_made_anew_runs_new_code(platform: &Platform) -> Result<()> {
    let code = |answer: &str| {
        format!(
            "import os, time\nseen = []\ndef handler(e, c):\n    seen.append(1)\n    if e == b'slow':\n        time.sleep(1)\n    return '{answer} %d' % len(seen)\n"
        )
    };
    let delete = || platform.api.json("DELETE", "/functions/again", "DeleteFunction", &Value::Null);
    platform.api.create("again", "python3.10", &[("index.py", &code("old"))], json!({"timeout": 10}))?;
    ensure!(platform.api.invoke("again", b"")?.text() == "old 1", "the first code runs");
    let old_host = platform.api.expose("again")?;
    refused(&delete()?, 409, "FunctionNotEmpty").context("a function with a trigger")?;
    let reply = platform.api.json("DELETE", "/functions/again/triggers/web", "DeleteTrigger", &Value::Null)?;
    ensure!(reply.status == 204, "{}", reply.text());
    let by_url = |host: &str| platform.connect()?.request("GET", "/", &[("host".to_owned(), host.to_owned())], b"");
    refused(&by_url(&old_host)?, 404, "TriggerNotFound").context("a URL whose trigger is gone")?;
    // A call in flight ends as it began, whatever happens to its function meanwhile.
    thread::scope(|scope| -> Result<()> {
        let slow = scope.spawn(|| platform.api.invoke("again", b"slow"));
        while instances(platform, "again")?["instances"].as_array().is_none_or(Vec::is_empty) {
            thread::yield_now();
        }
        ensure!(delete()?.status == 204, "a function is deleted under a call");
        let reply = slow.join().expect("no panic")?;
        // The call may have come after the delete; then it is told so.
        ensure!(reply.text() == "old 2" || reply.status == 404, "{} {}", reply.status, reply.text());
        Ok(())
    })?;
    refused(&platform.api.invoke("again", b"")?, 404, "FunctionNotFound").context("a call of what is gone")?;
    refused(&delete()?, 404, "FunctionNotFound").context("a second delete")?;
    let created = platform.api.create("again", "python3.10", &[("index.py", &code("new"))], json!({"timeout": 10}))?;
    ensure!(created["functionName"] == "again", "{created}");
    ensure!(platform.api.invoke("again", b"")?.text() == "new 1", "only new code runs");
    refused(&by_url(&old_host)?, 404, "TriggerNotFound").context("the old URL of the new function")?;
    let triggers = platform.api.json("GET", "/functions/again/triggers", "ListTriggers", &Value::Null)?.json()?;
    ensure!(triggers["triggers"].as_array().is_some_and(Vec::is_empty), "{triggers}");
    let host = platform.api.expose("again")?;
    ensure!(host != old_host, "a URL is never given twice");
    // The same code under the same name is still another function: nothing of the old one's memory is left.
    let reply = platform.api.json("DELETE", "/functions/again/triggers/web", "DeleteTrigger", &Value::Null)?;
    ensure!(reply.status == 204 && delete()?.status == 204, "deleted again");
    platform.api.create("again", "python3.10", &[("index.py", &code("new"))], json!({"timeout": 10}))?;
    ensure!(platform.api.invoke("again", b"")?.text() == "new 1", "a new instance runs");
    Ok(())
}

fn instances(platform: &Platform, name: &str) -> Result<Value> {
    platform.api.json("GET", &format!("/functions/{name}/instances"), "ListInstances", &Value::Null)?.json()
}
