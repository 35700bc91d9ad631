//! Which headers cross the wall, and which the platform writes (contract sections 8.2 and 8.3).
//!
//! Both directions drop what belongs to one hop, and everything in the platform's own `x-fc-` name space: a caller
//! cannot speak to the function in the platform's name, nor a function to the caller.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::call::CallContext;
use crate::context;
use crate::guest::LoadSpec;

/// Most bytes of all names and values of a response's headers.
pub(crate) const RESPONSE_HEADER_BYTES_MAX: usize = 8 << 10;

/// How the user's server marks a call good or bad whatever its status says.
pub(crate) const STATUS_MARK: HeaderName = HeaderName::from_static("x-fc-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-fc-request-id");
const CONTROL_PATH: HeaderName = HeaderName::from_static("x-fc-control-path");
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-fc-retry-count");
const CLIENT_IP: HeaderName = HeaderName::from_static("x-fc-client-ip");
const BASE_PATH: HeaderName = HeaderName::from_static("x-fc-base-path");

const PREFIX: &str = "x-fc-";

/// Belongs to one hop, in either direction.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
            | "http2-settings"
    )
}

/// Removes what belongs to one hop, what `Connection` names, and everything of the platform's.
fn strip(headers: &mut HeaderMap, also: &[HeaderName]) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let goes = |name: &HeaderName| {
        is_hop_by_hop(name)
            || name.as_str().starts_with(PREFIX)
            || also.contains(name)
            // A caller must not take the length or the host away from a request by naming them.
            || (named.iter().any(|other| other == name.as_str()) && *name != header::CONTENT_LENGTH && *name != header::HOST)
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Makes a caller's headers fit for the user's server.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    strip(headers, &[]);
}

/// Makes the user's headers fit for the caller. Answers their size when it is over the limit.
pub(crate) fn clean_response(headers: &mut HeaderMap) -> Result<(), usize> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > RESPONSE_HEADER_BYTES_MAX {
        return Err(bytes);
    }
    strip(headers, &[header::CONTENT_LENGTH, header::DATE, header::SERVER]);
    Ok(())
}

/// The common request headers that are the same for every request to one instance.
pub(crate) fn common(spec: &LoadSpec) -> HeaderMap {
    let config = &spec.function.config;
    let (log_project, log_store) = context::log_target(config);
    let memory = config.memory_size.to_string();
    let timeout = config.timeout.to_string();
    let mut pairs = vec![
        ("x-fc-function-name", config.function_name.as_str()),
        ("x-fc-function-handler", &config.handler),
        ("x-fc-function-memory", &memory),
        ("x-fc-function-timeout", &timeout),
        ("x-fc-region", &spec.region),
        ("x-fc-account-id", spec.key.function.account().as_str()),
        ("x-fc-qualifier", &spec.qualifier),
        ("x-fc-version-id", context::version_id(spec)),
        ("x-fc-access-key-id", ""),
        ("x-fc-access-key-secret", ""),
        ("x-fc-security-token", ""),
        ("x-fc-service-name", ""),
        ("x-fc-service-logproject", log_project),
        ("x-fc-service-logstore", log_store),
        ("x-fc-tracing-opentracing-span-context", ""),
        ("x-fc-tracing-opentracing-span-baggages", ""),
        ("x-fc-tracing-jaeger-endpoint", ""),
    ];
    let initialization_timeout = config.initializer().map(|hook| hook.timeout_in_force().to_string());
    if let Some(hook) = config.initializer() {
        pairs.push(("x-fc-function-initializer", context::hook_handler(hook).unwrap_or("")));
        pairs.push(("x-fc-initialization-timeout", initialization_timeout.as_deref().unwrap_or("")));
    }
    if let Some(hook) = config.pre_stop() {
        pairs.push(("x-fc-instance-lifecycle-pre-stop-handler", context::hook_handler(hook).unwrap_or("")));
    }
    pairs
        .into_iter()
        // A handler's text may hold what a header cannot; it is left out then rather than the request refused.
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
        .collect()
}

/// Adds the common request headers of one call.
pub(crate) fn add_common(headers: &mut HeaderMap, common: &HeaderMap, call: &CallContext, control_path: &'static str) {
    headers.extend(common.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(REQUEST_ID, call.request_id.as_str());
    put(CONTROL_PATH, control_path);
    put(RETRY_COUNT, &call.retry_count.to_string());
    put(CLIENT_IP, call.http_base.as_ref().map_or("", |base| &base.client_ip));
    put(BASE_PATH, call.http_base.as_ref().map_or("", |base| &base.base_path));
}

/// Headers for the wire: each byte of a value is the character of that number.
pub(crate) fn as_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Reads headers from the wire. `None` when one is no header.
pub(crate) fn from_pairs(pairs: &[(String, String)]) -> Option<HeaderMap> {
    let bytes = |text: &str| text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect::<Option<Vec<u8>>>();
    let pair = |(name, value): &(String, String)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(&bytes(value)?).ok()?))
    };
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs.iter().map(pair).collect::<Option<Vec<_>>>()? {
        headers.append(name, value);
    }
    Some(headers)
}

/// What `x-fc-status` says, if it says anything.
pub(crate) fn status_mark(headers: &HeaderMap) -> Option<u16> {
    headers.get(STATUS_MARK)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_caller_cannot_speak_in_the_platforms_name() {
        let mut headers = map(&[
            ("x-fc-request-id", "forged"),
            ("X-Fc-Anything", "1"),
            ("x-foo", "kept"),
            ("connection", "close, x-named, content-length, host"),
            ("x-named", "1"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("host", "h"),
        ]);
        clean_request(&mut headers);
        assert_eq!(names(&headers), ["content-length", "host", "x-foo"]);
    }

    #[test]
    fn a_function_cannot_forge_what_the_platform_answers() {
        let mut headers = map(&[
            ("x-fc-error-type", "forged"),
            ("content-length", "9"),
            ("date", "d"),
            ("server", "s"),
            ("keep-alive", "k"),
            ("connection", "close"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
        ]);
        clean_response(&mut headers).unwrap();
        assert_eq!(names(&headers), ["content-type", "set-cookie"]);
    }

    #[test]
    fn headers_survive_the_wire_byte_by_byte() {
        let mut headers = map(&[("a", "1"), ("b", "2")]);
        headers.append("a", HeaderValue::from_bytes(b"\xe9\xff").unwrap());
        assert_eq!(from_pairs(&as_pairs(&headers)).unwrap(), headers);
        for (name, value) in [("a b", "1"), ("a", "line\nbreak"), ("a", "\u{20ac}")] {
            assert_eq!(from_pairs(&[(name.to_owned(), value.to_owned())]), None, "{name}: {value}");
        }
    }

    #[test]
    fn response_headers_have_a_size() {
        let large = "x".repeat(RESPONSE_HEADER_BYTES_MAX);
        assert!(clean_response(&mut map(&[("a", &large)])).is_err());
    }
}
