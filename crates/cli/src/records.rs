//! `dunlin records`: what each call left.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;

use crate::args::{Format, Records};
use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::output::{Output, text};

/// Records asked for at a time.
const PAGE: usize = 1000;

pub(crate) fn run(client: &Client, output: &Output, query: &Records) -> Result<ExitCode, Failure> {
    let what = format!("cannot read the records of '{}'", query.name);
    let since = query.since.as_deref().map(|text| since(&what, text)).transpose()?;
    let call = |token| {
        Call::new("DunlinListRecords", "GET", "/dunlin/records")
            .query("functionName", Some(&query.name))
            .query("requestId", query.request_id.as_ref())
            .query("since", since.map(|since| since.to_string()))
            .query("limit", Some(query.limit.clamp(1, PAGE)))
            .query("nextToken", token)
    };
    let records = client.list(&what, "records", query.limit, call)?;
    if records.is_empty() && output.format == Format::Table {
        output.note(&format!("no call of '{}' has left a record yet", query.name));
        return Ok(ExitCode::SUCCESS);
    }
    output.list(
        &records,
        "requestId",
        &[
            ("STARTED", &|record| text(&record["started"])),
            ("REQUEST", &|record| text(&record["requestId"])),
            ("OUTCOME", &|record| text(&record["outcome"])),
            ("START", &|record| if record["cold"] == true { "cold".into() } else { "warm".into() }),
            ("QUEUE", &|record| milliseconds(&record["queueUs"])),
            ("INIT", &|record| milliseconds(&record["initUs"])),
            ("HANDLER", &|record| milliseconds(&record["handlerUs"])),
            ("BILLED", &|record| format!("{} ms", text(&record["billedMs"]))),
            ("MEMORY", &|record| format!("{} MB", record["memoryPeakBytes"].as_u64().unwrap_or(0).div_ceil(1 << 20))),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(microseconds: &Value) -> String {
    microseconds.as_u64().map_or_else(|| "-".into(), |us| format!("{}.{:01} ms", us / 1000, us % 1000 / 100))
}

/// A moment in milliseconds since 1970, as text.
pub(crate) fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| "-".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Reads `10m`, `2h` or a time of day with date.
pub(crate) fn since(what: &str, text: &str) -> Result<Timestamp, Failure> {
    let wrong = || Failure::usage(what, format!("'{text}' is no time")).next("write 30s, 10m, 2h, 1d, or 2026-01-31T08:00:00Z");
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<i64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    Timestamp::from_second(Timestamp::now().as_second().saturating_sub(seconds)).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = Timestamp::now().as_second();
        for (text, ago) in [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            let read = since("test", text).expect(text).as_second();
            assert!((now - ago..=now - ago + 5).contains(&read), "{text}: {read}");
        }
        assert_eq!(since("test", "2026-01-31T08:00:00Z").expect("a time").to_string(), "2026-01-31T08:00:00Z");
        for text in ["", "10", "m", "10x", "-5m", "99999999999999999999s", "yesterday"] {
            assert!(since("test", text).is_err(), "{text}");
        }
    }

    #[test]
    fn microseconds_are_shown_in_milliseconds() {
        assert_eq!(milliseconds(&Value::from(1234)), "1.2 ms");
        assert_eq!(milliseconds(&Value::Null), "-");
    }
}
