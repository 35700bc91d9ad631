//! Header fields: reading ours, writing ours, and keeping the function's away from both.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_invoke::{Reply, SessionMark};
use dunlin_model::Phases;
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use crate::error::Problem;

/// Fields about one connection, which end at each hop (RFC 9110, section 7.6.1), and those that frame a message.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Whether a field of a request ends at the door.
pub(super) fn ends_here(name: &str) -> bool {
    HOP_BY_HOP.contains(&name) || name.starts_with("x-fc-")
}

/// Whether a field is not a function's to set.
pub(super) fn is_reserved(name: &str) -> bool {
    ends_here(name) || matches!(name, "content-length" | "date" | "server" | "alt-svc") || name.starts_with("x-dunlin-")
}

/// The value of a field that may be there once.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Problem::invalid(format!("the header {name} is not ASCII"))),
        (Some(_), Some(_)) => Err(Problem::invalid(format!("the header {name} is there more than once"))),
    }
}

/// Sets a field of ours.
pub(super) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).expect("the platform's own values are visible ASCII");
    headers.insert(HeaderName::from_static(name), value);
}

/// Whether every `%` of a path begins an escape, and none stands for NUL.
pub(super) fn is_well_escaped(path: &str) -> bool {
    let mut parts = path.split('%');
    parts.next();
    parts.all(|part| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00")
    })
}

/// Whether a `Set-Cookie` stays within the function's own host. A cookie for the parent domain would reach every
/// other function of the platform.
pub(super) fn cookie_stays(value: &[u8], host: &str) -> bool {
    let value = String::from_utf8_lossy(value);
    value.split(';').skip(1).all(|attribute| {
        let (name, domain) = attribute.split_once('=').unwrap_or((attribute, ""));
        if !name.trim().eq_ignore_ascii_case("domain") {
            return true;
        }
        let domain = domain.trim().trim_start_matches('.').to_ascii_lowercase();
        domain.is_empty() || domain == host || domain.ends_with(&format!(".{host}"))
    })
}

/// What the platform says about a call in the headers of its answer.
pub(super) struct Facts {
    fields: Vec<(&'static str, String)>,
    timing: String,
    session: Option<SessionMark>,
}

impl Facts {
    /// Collects them. While the answer is still running, its duration and memory are not known and not made up.
    pub(super) fn of(reply: &Reply, streamed: bool) -> Self {
        let mut fields =
            vec![("x-fc-code-checksum", reply.checksum.to_string()), ("x-fc-invocation-service-version", reply.version.clone())];
        if let Some(instance) = &reply.instance {
            fields.push(("x-fc-instance-id", instance.to_string()));
        }
        if !streamed {
            fields.push(("x-fc-invocation-duration", milliseconds(reply.phases.handler)));
            fields.push(("x-fc-max-memory-usage", megabytes(reply.memory_peak_bytes)));
        }
        if let Err(error) = &reply.result {
            fields.push(("x-fc-error-type", error.error_type.as_str().to_owned()));
        }
        if let Some(tail) = &reply.log_tail {
            fields.push(("x-fc-log-result", STANDARD.encode(tail)));
        }
        Self { fields, timing: server_timing(&reply.phases), session: reply.session.clone() }
    }

    /// Writes them over whatever the function wrote there.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            put(headers, name, value);
        }
        if let Some(mark) = &self.session {
            let (name, value) = mark.field();
            // A cookie stands beside the function's own; a field of this name is ours alone.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
                if name == SET_COOKIE {
                    headers.append(name, value);
                } else {
                    headers.insert(name, value);
                }
            }
        }
        // The function's own timings stand beside ours.
        if let Ok(value) = HeaderValue::from_str(&self.timing) {
            headers.append("server-timing", value);
        }
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "two decimals of megabytes")]
fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / f64::from(1 << 20))
}

fn server_timing(phases: &Phases) -> String {
    let parts = [
        ("queue", phases.queue),
        ("bind", phases.bind),
        ("load", phases.load),
        ("init", phases.init),
        ("handler", phases.handler),
    ];
    parts.map(|(name, took)| format!("{name};dur={:.3}", took.as_secs_f64() * 1000.0)).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_for_the_parent_domain_does_not_stay() {
        let host = "key-a.fn.localhost";
        for cookie in [
            "a=b",
            "a=b; Path=/; HttpOnly",
            "a=b; Domain=key-a.fn.localhost",
            "a=b;domain=.x.key-a.fn.localhost",
            "a=domain=localhost",
        ] {
            assert!(cookie_stays(cookie.as_bytes(), host), "{cookie}");
        }
        for cookie in [
            "a=b; Domain=localhost",
            "a=b;DOMAIN = .fn.localhost",
            "a=b; domain=key-b.fn.localhost",
            "a=b; Domain=xkey-a.fn.localhost",
        ] {
            assert!(!cookie_stays(cookie.as_bytes(), host), "{cookie}");
        }
    }

    #[test]
    fn a_path_is_refused_for_broken_escapes_only() {
        for path in ["/", "/a%20b", "/%2F%2e%2e", "//", "/../.."] {
            assert!(is_well_escaped(path), "{path}");
        }
        for path in ["/%", "/%2", "/%zz", "/a%00b", "/%%20"] {
            assert!(!is_well_escaped(path), "{path}");
        }
    }
}
