//! Connections that change their protocol: WebSockets to a function's own server (contract section 8.3).
//!
//! The caller asks, the function's server agrees with 101, and the answer takes the tunnel along as an extension,
//! [`Handover`]; whoever owns the connection carries bytes through it once the 101 is written.

use std::sync::{Arc, Mutex, PoisonError};

use dunlin_runtime::{Tunnel, Upgrade};
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, Response, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;

use super::pass;
use crate::Body;
use crate::error::Problem;

/// The one protocol that is carried. Others (`h2c` above all) would let a caller past the door's reading of requests.
const WEBSOCKET: &str = "websocket";

/// The tunnel that an answer with status 101 stands for. Taken out once.
#[derive(Clone, Debug)]
pub(crate) struct Handover(Arc<Mutex<Option<Tunnel>>>);

impl Handover {
    pub(crate) fn take(&self) -> Option<Tunnel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether the request may ask for another protocol; it has an `Upgrade` header.
pub(super) fn check(head: &Parts, body: &Incoming, passes: bool) -> Result<(), Problem> {
    let refused = |why: &str| Err(Problem::invalid(format!("{why}; or leave the Upgrade header out")).closing());
    if !passes {
        return refused("a change of protocol is served by custom runtimes only");
    }
    let mut values = head.headers.get_all(UPGRADE).iter();
    let websocket = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    if !websocket || values.next().is_some() {
        return refused("the protocol to change to must be 'websocket'");
    }
    let named = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    if !named.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade")) {
        return refused("the Connection header must name 'upgrade'");
    }
    if head.method != Method::GET || head.version != Version::HTTP_11 || !body.is_end_stream() {
        return refused("a change of protocol is asked for by GET in HTTP/1.1, without a body");
    }
    Ok(())
}

/// What the request asks for, of a request that [`check`] has passed.
pub(super) fn asked_for(head: &Parts) -> Option<Upgrade> {
    head.headers.contains_key(UPGRADE).then(|| Upgrade(HeaderValue::from_static(WEBSOCKET)))
}

/// The answer that hands the connection over.
pub(super) fn response(head: Response<()>, tunnel: Tunnel, host: &str) -> Result<Response<Body>, Problem> {
    let (status, kept) = (head.status(), [CONNECTION, UPGRADE]);
    let about_this_hop: Vec<(HeaderName, HeaderValue)> =
        kept.into_iter().filter_map(|name| Some((name.clone(), head.headers().get(&name)?.clone()))).collect();
    // The fields are held to what any answer's are.
    let (mut parts, ()) = head.into_parts();
    parts.status = http::StatusCode::OK;
    let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = pass::response(Response::from_parts(parts, empty), host)?;
    *response.status_mut() = status;
    response.headers_mut().extend(about_this_hop);
    response.extensions_mut().insert(Handover(Arc::new(Mutex::new(Some(tunnel)))));
    Ok(response)
}
