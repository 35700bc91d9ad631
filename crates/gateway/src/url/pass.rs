//! Requests that pass through to a custom runtime's own server, and its responses (contract section 8).

use dunlin_runtime::HttpBase;
use http::header::{CONNECTION, HeaderMap, HeaderName, SET_COOKIE};
use http::request::Parts;
use http::{Request, Response};

use super::{Hit, fields};
use crate::Body;
use crate::error::Problem;

/// Most bytes of all headers of a response.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// The request as the function's server gets it. Facts that only the door knows travel as an extension, [`HttpBase`].
pub(super) fn request(hit: &Hit<'_>, head: Parts, body: Body) -> Request<Body> {
    let mut request = Request::from_parts(head, body);
    end_hop(request.headers_mut());
    remove(request.headers_mut(), |name| fields::ends_here(name.as_str()));
    request.extensions_mut().clear();
    request.extensions_mut().insert(HttpBase { client_ip: hit.peer.to_string(), base_path: hit.entrance.base_path.to_owned() });
    request
}

/// The response as the caller gets it.
pub(super) fn response(response: Response<Body>, host: &str) -> Result<Response<Body>, Problem> {
    let (mut head, body) = response.into_parts();
    if !(200..=599).contains(&head.status.as_u16()) {
        return Err(Problem::bad_response(format!("the function's server answered with status {}", head.status.as_u16())));
    }
    let named = named_by_connection(&head.headers);
    remove(&mut head.headers, |name| fields::is_reserved(name.as_str()) || named.contains(name));
    if head.headers.contains_key(SET_COOKIE) {
        let staying: Vec<_> = head
            .headers
            .get_all(SET_COOKIE)
            .iter()
            .filter(|value| fields::cookie_stays(value.as_bytes(), host))
            .cloned()
            .collect();
        head.headers.remove(SET_COOKIE);
        for value in staying {
            head.headers.append(SET_COOKIE, value);
        }
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(Problem::bad_response(format!(
            "the function's server answered with headers of more than {HEADER_BYTES_MAX} bytes"
        )));
    }
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Takes out what `Connection` says is about this hop, and itself.
pub(super) fn end_hop(headers: &mut HeaderMap) {
    let named = named_by_connection(headers);
    remove(headers, |name| *name == CONNECTION || named.contains(name));
}

/// The fields that `Connection` says are about this hop.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn remove(headers: &mut HeaderMap, ends: impl Fn(&HeaderName) -> bool) {
    let ending: Vec<HeaderName> = headers.keys().filter(|name| ends(name)).cloned().collect();
    for name in ending {
        headers.remove(name);
    }
}
