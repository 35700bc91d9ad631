//! Whose request it is.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Connection, Options, Platform, Response};

use crate::refused;

const TARGET: &str = "/2023-03-30/functions";

type Headers = Vec<(String, String)>;

/// What is wrong with an Authorization, and how a good one becomes so.
type Forgery<'a> = (&'a str, &'a dyn Fn(&str) -> String);

fn signed(platform: &Platform, extra: &[(&str, &str)], body: &[u8]) -> Headers {
    platform.api.sign("GET", TARGET, "ListFunctions", extra, body)
}

fn send(platform: &Platform, headers: &Headers, body: &[u8]) -> Result<Response> {
    platform.connect()?.request("GET", TARGET, headers, body)
}

/// Headers without those called `name`.
fn without(mut headers: Headers, name: &str) -> Headers {
    headers.retain(|(other, _)| other != name);
    headers
}

/// Headers with a part of the Authorization replaced.
fn forged(mut headers: Headers, change: impl Fn(&str) -> String) -> Headers {
    for (name, value) in &mut headers {
        if name == "authorization" {
            *value = change(value);
        }
    }
    headers
}

pub(crate) fn signatures_are_checked_strictly(platform: &Platform) -> Result<()> {
    let fresh = || signed(platform, &[], b"");
    let good = fresh();
    ensure!(send(platform, &good, b"")?.status == 200, "a good signature is accepted");
    refused(&send(platform, &good, b"")?, 403, "SignatureNonceUsed").context("a replay")?;
    refused(&send(platform, &without(fresh(), "authorization"), b"")?, 403, "AccessDenied").context("no signature")?;
    for name in ["x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"] {
        refused(&send(platform, &without(fresh(), name), b"")?, 400, "MissingRequiredHeader")
            .with_context(|| format!("without {name}"))?;
    }
    let edits: &[(&str, &str, &str, &str)] = &[
        ("another algorithm", "ACS3-HMAC-SHA256", "ACS3-HMAC-SM3", "NotSupported"),
        ("no algorithm", "ACS3-HMAC-SHA256 ", "", "NotSupported"),
        ("the algorithm in lower case", "ACS3-HMAC-SHA256", "acs3-hmac-sha256", "NotSupported"),
        ("a longer signature", "Signature=", "Signature=0", "SignatureNotMatch"),
        ("another key", "Credential=", "Credential=X", "InvalidAccessKeyID"),
        ("a header dropped from the list", "host;", "", "SignatureNotMatch"),
        ("a header in the list that is not there", "host;", "host;x-absent;", "SignatureNotMatch"),
        ("a list in another order", "host;", "", "SignatureNotMatch"),
        ("two signatures", "Signature=", "Signature=0,Signature=", "SignatureNotMatch"),
    ];
    for (what, from, to, code) in edits {
        let headers = forged(fresh(), |value| value.replacen(from, to, 1));
        refused(&send(platform, &headers, b"")?, 403, code).with_context(|| (*what).to_owned())?;
    }
    let (start, key) = ("Signature=", platform.api.credentials().access_key_id.clone());
    let cut = |value: &str| value[..value.len() - 2].to_owned();
    let nothing = |value: &str| value[..value.find(start).unwrap_or(0) + start.len()].to_owned();
    let upper = |value: &str| {
        let at = value.find(start).unwrap_or(0) + start.len();
        format!("{}{}", &value[..at], value[at..].to_ascii_uppercase())
    };
    let flipped = |value: &str| {
        let last = if value.ends_with('0') { "1" } else { "0" };
        format!("{}{last}", &value[..value.len() - 1])
    };
    let nobody = |value: &str| value.replacen(&key, "", 1);
    let changes: [Forgery<'_>; 5] = [
        ("a truncated signature", &cut),
        ("an empty signature", &nothing),
        ("upper case", &upper),
        ("another last digit", &flipped),
        ("an empty key", &nobody),
    ];
    for (what, change) in changes {
        let reply = send(platform, &forged(fresh(), change), b"")?;
        ensure!(reply.status == 403, "{what}: {} {}", reply.status, reply.text());
        crate::shaped(&reply).with_context(|| what.to_owned())?;
    }
    refused(&send(platform, &signed(platform, &[], b"one"), b"two")?, 403, "SignatureNotMatch").context("another body")?;
    refused(&send(platform, &signed(platform, &[], b"one"), b"")?, 403, "SignatureNotMatch").context("no body")?;
    for (name, value) in [
        ("x-acs-action", "DeleteFunction"),
        ("x-acs-unsigned", "1"),
        ("authorization", "x"),
        ("x-acs-content-sha256", "00"),
        ("x-acs-signature-nonce", "n"),
    ] {
        let mut headers = fresh();
        headers.push((name.into(), value.into()));
        let reply = send(platform, &headers, b"")?;
        ensure!(reply.status == 403, "a second {name}: {} {}", reply.status, reply.text());
        crate::shaped(&reply).with_context(|| format!("a second {name}"))?;
    }
    // The signature covers the method, the path as it was sent, and the query's values.
    for (what, method, target) in [
        ("another method", "POST", TARGET),
        ("another path", "GET", "/2023-03-30/functions/echo"),
        ("the path escaped", "GET", "/2023-03-30/%66unctions"),
        ("a query", "GET", "/2023-03-30/functions?limit=1"),
    ] {
        refused(&platform.connect()?.request(method, target, &fresh(), b"")?, 403, "SignatureNotMatch").context(what)?;
    }
    let query = platform.api.sign("GET", "/2023-03-30/functions?prefix=a%20b", "ListFunctions", &[], b"");
    let reply = platform.connect()?.request("GET", "/2023-03-30/functions?prefix=a%2520b", &query, b"")?;
    refused(&reply, 403, "SignatureNotMatch").context("a value escaped twice")?;
    Ok(())
}

pub(crate) fn dates_are_near(platform: &Platform) -> Result<()> {
    let at = |date: &str| send(platform, &signed(platform, &[("x-acs-date", date)], b""), b"");
    for offset in [16 * 60, -16 * 60, 86_400 * 400, -86_400 * 400] {
        refused(&at(&acs_date(offset))?, 403, "RequestTimeTooSkewed").with_context(|| format!("a date {offset} s off"))?;
    }
    for date in ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "1970-01-01T00:00:00Z"] {
        refused(&at(date)?, 403, "RequestTimeTooSkewed").context(date)?;
    }
    for date in [
        "",
        "now",
        "2026-02-30T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00+00:00",
        "99999999999999999999",
    ] {
        let reply = at(date)?;
        ensure!(reply.status == 403, "{date:?}: {} {}", reply.status, reply.text());
        crate::shaped(&reply).with_context(|| date.to_owned())?;
    }
    for offset in [-600, 600] {
        ensure!(at(&acs_date(offset))?.status == 200, "{offset} s of skew are accepted");
    }
    let mut twice = signed(platform, &[], b"");
    twice.push(("x-acs-date".into(), acs_date(0)));
    refused(&send(platform, &twice, b"")?, 403, "SignatureNotMatch").context("two dates")?;
    Ok(())
}

pub(crate) fn nonces_are_used_once_even_across_a_restart(_: &Platform) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { data: Some(folder.path().join("data")), ..Options::default() };
    let platform = Platform::start(&options)?;
    let good = signed(&platform, &[], b"");
    ensure!(send(&platform, &good, b"")?.status == 200, "a good signature is accepted");
    ensure!(platform.stop()?.success(), "the platform stops");
    let platform = Platform::start(&options)?;
    // The port is another one; the host that was signed is a header like any other.
    let reply = Connection::open(platform.address())?.request("GET", TARGET, &good, b"")?;
    refused(&reply, 403, "SignatureNonceUsed")?;
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
