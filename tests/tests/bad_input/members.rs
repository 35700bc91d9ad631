//! Members of requests, and the JSON they come in.

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, zip_of};
use serde_json::{Value, json};

use crate::packages::kept;
use crate::{absent, create, refused, shaped};

const CODE: &[(&str, &str)] = &[("index.py", "def handler(e, c):\n    return 'x'\n")];

fn good(name: &str) -> Result<Value> {
    let zip = zip_of(CODE)?;
    Ok(
        json!({"functionName": name, "runtime": "python3.10", "handler": "index.handler", "memorySize": 128, "code": {"zipFile": zip}}),
    )
}

pub(crate) fn names_are_one_of_a_kind(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let (long, over) = ("x".repeat(64), "x".repeat(65));
    let strange = [
        "",
        "9x",
        "-x",
        ".",
        "..",
        "a.b",
        "a/b",
        "a\\b",
        "..%2f",
        "%2e%2e",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\t",
        "a\0",
        "a\u{7f}",
        "é",
        "e\u{301}",
        "\u{430}",
        "\u{ff11}a",
        "a\u{202e}b",
        "a\u{200b}",
        "\u{feff}a",
        "🤷",
        "a:b",
        "a*",
        "a#b",
        "a?b",
        "a%41",
        &over,
    ];
    for name in strange {
        let message = refused(&create(platform, good(name)?.to_string().as_bytes())?, 400, "InvalidArgument")
            .with_context(|| format!("{name:?}"))?;
        ensure!(message.contains("functionName"), "{name:?}: the message does not name functionName: {message}");
        ensure!(
            !message.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)),
            "{name:?}: repeated raw: {message:?}"
        );
    }
    ensure!(kept(platform) == before, "something of a refused function is left on disk");
    // Names that mean something elsewhere mean nothing here, and upper case is another name.
    for name in ["_", "a", "A", "con", "nul", "LATEST", "__proto__", &long] {
        let reply = create(platform, good(name)?.to_string().as_bytes())?;
        ensure!(reply.status == 200, "{name}: {}", reply.text());
        ensure!(platform.api.invoke(name, b"")?.text() == "x", "{name}");
        let deleted = platform.api.json("DELETE", &format!("/functions/{name}"), "DeleteFunction", &Value::Null)?;
        ensure!(deleted.status == 204, "{name}: {}", deleted.text());
        absent(platform, name)?;
    }
    Ok(())
}

pub(crate) fn wrong_members_are_named(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let good = good("bad")?;
    let zip = &good["code"]["zipFile"];
    let many: serde_json::Map<String, Value> = (0..10_000).map(|n| (format!("V{n}"), json!("x"))).collect();
    let cases: &[(&str, Value, &str)] = &[
        ("functionName", json!(7), "functionName"),
        ("functionName", json!(null), "functionName"),
        ("runtime", json!("cobol"), "runtime"),
        ("runtime", json!(null), "runtime"),
        ("handler", json!("nodot"), "handler"),
        ("handler", json!("../x.y"), "handler"),
        ("handler", json!("/etc/passwd.y"), "handler"),
        ("handler", json!("index.handler\0"), "handler"),
        ("memorySize", json!(127), "memorySize"),
        ("memorySize", json!(130), "memorySize"),
        ("memorySize", json!(32_832), "memorySize"),
        ("timeout", json!(86_401), "timeout"),
        ("cpu", json!(17), "cpu"),
        ("cpu", json!(0.01), "cpu"),
        ("cpu", json!(-1), "cpu"),
        ("cpu", json!("1"), "cpu"),
        ("diskSize", json!(100), "diskSize"),
        ("instanceConcurrency", json!(201), "instanceConcurrency"),
        ("internetAccess", json!("yes"), "internetAccess"),
        ("environmentVariables", json!({"A=": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"A\0": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"A": "x\0y"}), "environmentVariables"),
        ("environmentVariables", json!({"FC_X": "x"}), "environmentVariables"),
        ("environmentVariables", json!({"A": "x".repeat(5000)}), "environmentVariables"),
        ("environmentVariables", json!({"A": 1}), "environmentVariables"),
        ("environmentVariables", json!([]), "environmentVariables"),
        ("environmentVariables", Value::Object(many), "environmentVariables"),
        ("description", json!("x".repeat(257)), "description"),
        ("description", json!("x".repeat(10 << 20)), "description"),
        ("tags", json!([{"Key": ""}]), "tags"),
        ("code", json!({}), "code"),
        ("code", json!([]), "code"),
        ("code", json!("x"), "code"),
        ("code", json!({"zipFile": 1}), "zipFile"),
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
        ensure!(message.len() < 2000, "{member} = {shown}: a message of {} bytes", message.len());
        absent(platform, "bad")?;
    }
    ensure!(kept(platform) == before, "something of a refused function is left on disk");
    Ok(())
}

pub(crate) fn numbers_are_whole_and_neither_wrap_nor_clamp(platform: &Platform) -> Result<()> {
    let good = good("numbered")?.to_string();
    let wrong = [
        "-1",
        "0",
        "-0",
        "1.5",
        "128.5",
        "128.0",
        "1e400",
        "-1e400",
        "1e2",
        "2147483648",
        "4294967424",
        "9007199254740993",
        "9223372036854775808",
        "18446744073709551744",
        "\"128\"",
        "true",
        "[]",
        "{}",
    ];
    // These are no JSON at all.
    let broken = ["NaN", "-Infinity", "0x80", "0128", "+128", "1_024", ".5", "128.", "１２８"];
    for member in ["memorySize", "timeout", "instanceConcurrency", "diskSize"] {
        for number in wrong {
            let body = good.replace("\"memorySize\":128", &format!("\"{member}\":{number}"));
            let message = refused(&create(platform, body.as_bytes())?, 400, "InvalidArgument")
                .with_context(|| format!("{member} = {number}"))?;
            ensure!(message.contains(member), "{member} = {number}: {message}");
        }
        for number in broken {
            let body = good.replace("\"memorySize\":128", &format!("\"{member}\":{number}"));
            refused(&create(platform, body.as_bytes())?, 400, "InvalidArgument")
                .with_context(|| format!("{member} = {number}"))?;
        }
    }
    absent(platform, "numbered")?;
    // The edges themselves are fine, and come back as they were sent.
    for (member, number) in
        [("memorySize", 32_768), ("memorySize", 128), ("timeout", 1), ("timeout", 86_400), ("diskSize", 10_240)]
    {
        let body = good.replace("\"memorySize\":128", &format!("\"{member}\":{number}"));
        let reply = create(platform, body.as_bytes())?;
        ensure!(reply.status == 200 && reply.json()?[member] == number, "{member} = {number}: {}", reply.text());
        platform.api.json("DELETE", "/functions/numbered", "DeleteFunction", &Value::Null)?;
    }
    Ok(())
}

/// Every body is a good one with a single fault, so that none is refused for another reason than its own.
pub(crate) fn bodies_that_are_not_the_json_they_claim_to_be(platform: &Platform) -> Result<()> {
    let good = good("bodied")?.to_string();
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1).into_bytes();
    let raw = |before: &[u8], odd: &[u8], after: &[u8]| {
        [b"{\"description\":\"", before, odd, after, b"\",", &good.as_bytes()[1..]].concat()
    };
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("white space", b" \r\n\t".to_vec()),
        ("an array", format!("[{good}]").into_bytes()),
        ("a string", b"\"x\"".to_vec()),
        ("null", b"null".to_vec()),
        ("trailing garbage", format!("{good} x").into_bytes()),
        ("a second object", format!("{good}{good}").into_bytes()),
        ("a NUL behind it", format!("{good}\0").into_bytes()),
        ("a comment", good.replacen('{', "{/* */", 1).into_bytes()),
        ("a trailing comma", format!("{},}}", &good[..good.len() - 1]).into_bytes()),
        ("single quotes", good.replace('"', "'").into_bytes()),
        ("a byte order mark", [b"\xef\xbb\xbf", good.as_bytes()].concat()),
        ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("invalid UTF-8", raw(b"", b"\xff", b"")),
        ("overlong UTF-8", raw(b"a", b"\xc0\xaf", b"b")),
        ("a surrogate in UTF-8", raw(b"", b"\xed\xa0\x80", b"")),
        ("a lone surrogate", raw(b"", br"\ud800", b"")),
        ("a raw control character", raw(b"a", b"\n", b"b")),
        ("an escape that is none", raw(b"", br"\x41", b"")),
        ("a member twice", with("\"functionName\":\"bodied\"")),
        ("a member twice below", with("\"tags\":[{\"key\":\"a\",\"key\":\"a\"}]")),
        ("depth", nested(10_000).into_bytes()),
        ("depth without end", "[".repeat(1 << 20).into_bytes()),
        ("depth in a kept member", with(&format!("\"logConfig\":{}", nested(10_000)))),
        ("depth in an unknown member", with(&format!("\"unheardOf\":{}", nested(10_000)))),
        ("truncated", good.as_bytes()[..good.len() - 1].to_vec()),
    ];
    for (what, body) in bodies {
        refused(&create(platform, &body)?, 400, "InvalidArgument").context(what)?;
        absent(platform, "bodied").context(what)?;
    }
    for (name, value) in [
        ("content-type", "application/xml"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-encoding", "gzip"),
        ("content-encoding", "br"),
    ] {
        let reply = platform.api.send("POST", "/2023-03-30/functions", "CreateFunction", &[(name, value)], good.as_bytes())?;
        refused(&reply, 415, "UnsupportedMediaType").with_context(|| format!("{name}: {value}"))?;
        absent(platform, "bodied").context(value)?;
    }
    Ok(())
}

pub(crate) fn strings_come_back_as_they_were_sent(platform: &Platform) -> Result<()> {
    let naughty = [
        "<script>alert(1)</script>",
        "'; DROP TABLE functions;--",
        "\u{202e}evil",
        "\u{0}",
        "𝕳🤷‍♀️",
        "%s%n",
        "${jndi:x}",
        "\u{fffe}",
        " \t\r\n",
        "\u{1b}[31m",
        "\\\"",
        "../../etc/passwd",
        "e\u{301}",
        "é",
    ];
    for (n, text) in naughty.iter().enumerate() {
        let name = format!("naughty-{n}");
        let members = json!({"description": text, "environmentVariables": {"TEXT": text.replace('\0', "")}});
        let code = "import os\ndef handler(e, c):\n    return os.environ['TEXT']\n";
        let created = platform.api.create(&name, "python3.10", &[("index.py", code)], members)?;
        ensure!(created["description"] == *text, "{text:?} came back as {}", created["description"]);
        ensure!(platform.api.invoke(&name, b"")?.text() == text.replace('\0', ""), "{text:?}");
        let path = format!("/functions/{name}");
        let got = platform.api.json("GET", &path, "GetFunction", &Value::Null)?.json()?;
        ensure!(got["description"] == *text, "{text:?} was read as {}", got["description"]);
        let listed =
            platform.api.json("GET", &format!("/functions?prefix={name}&limit=1"), "ListFunctions", &Value::Null)?.json()?;
        ensure!(listed["functions"][0]["description"] == *text, "{text:?} was listed as {listed}");
        // As a query parameter and as a path it is refused or finds nothing, and never breaks anything.
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = platform.api.json("GET", &format!("/functions/{escaped}"), "GetFunction", &Value::Null)?;
        shaped(&reply).with_context(|| format!("{text:?} as a path"))?;
        let reply = platform.api.json("GET", &format!("/functions?prefix={escaped}"), "ListFunctions", &Value::Null)?;
        ensure!(
            reply.status == 200 && reply.json()?["functions"].as_array().is_some_and(Vec::is_empty),
            "{text:?}: {}",
            reply.text()
        );
    }
    Ok(())
}
