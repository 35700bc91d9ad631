//! Components that answer requests (`wasi:http/incoming-handler`).

use std::future::Future;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use crate::failure::Failure;
use crate::instance::{Call, Instance};
use crate::request::{Request, put, response_head};
use crate::state::State;
use crate::stdio::{Log, Output};
use crate::wire::{ANSWER_BYTES_MAX, Reply};

/// Marks a response good or bad whatever its status says (contract section 8.4).
const STATUS_MARK: &str = "x-fc-status";

/// Where a response goes.
pub(crate) trait Taker: Send {
    /// Its head.
    fn head(&mut self, status: StatusCode, headers: &HeaderMap);
    /// A part of its body.
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Taker for &Reply {
    fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        Reply::head(self, &response_head(status.as_u16(), headers));
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        self.chunk(data).await;
        Ok(())
    }
}

/// A response as a whole.
#[derive(Default)]
struct Collected {
    status: u16,
    body: BytesMut,
}

impl Taker for Collected {
    fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        let mark = headers.get(STATUS_MARK).and_then(|mark| mark.to_str().ok()?.trim().parse().ok());
        self.status = mark.unwrap_or(status.as_u16());
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Failure> {
        if self.body.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(Failure::too_large(ANSWER_BYTES_MAX));
        }
        self.body.extend_from_slice(&data);
        Ok(())
    }
}

/// How an event was answered: well, or with an error of the function's own making.
pub(crate) enum EventAnswer {
    Good(Bytes),
    Bad(Bytes),
}

impl Instance {
    /// An event, as `POST /invoke` (contract section 8.3).
    pub(crate) async fn event(&self, proxy: &ProxyPre<State>, call: &Call, event: Bytes) -> Result<EventAnswer, Failure> {
        let own = [
            ("content-type", "application/octet-stream"),
            ("x-fc-control-path", "/invoke"),
            ("x-fc-request-id", &call.request_id),
            ("x-fc-retry-count", &call.retry_count.to_string()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut request = Request { method: "POST".to_owned(), uri: "/invoke".to_owned(), headers: own.into() }
            .with_body(Full::new(event).map_err(|never| match never {}))
            .map_err(|error| bad_request(&error))?;
        put(request.headers_mut(), &self.http_headers);
        let mut collected = Collected::default();
        self.respond(proxy, request, &mut collected).await?;
        let body = collected.body.freeze();
        Ok(if collected.status == 200 { EventAnswer::Good(body) } else { EventAnswer::Bad(body) })
    }

    /// A request in, a response out. Returns when the body has gone out and the component has ended.
    pub(crate) async fn respond<B>(
        &self,
        proxy: &ProxyPre<State>,
        request: http::Request<B>,
        taker: &mut impl Taker,
    ) -> Result<(), Failure>
    where
        B: Body<Data = Bytes, Error = Error> + Send + 'static,
    {
        let log = Output::new(Log::default());
        let platform = |error: wasmtime::Error| Failure::worded("PlatformError", &format!("{error:#}"));
        let (mut store, ending) = self.store(None, log.clone(), &log, &[]).map_err(platform)?;
        let incoming = store.data_mut().http().new_incoming_request(Scheme::Http, request).map_err(platform)?;
        let (sender, mut response) = oneshot::channel();
        let outparam = store.data_mut().http().new_response_outparam(sender).map_err(platform)?;
        // The store goes when the component has ended, and with it whatever the component left open.
        let guest = async move {
            let proxy = proxy.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, incoming, outparam).await
        };
        let mut guest = pin!(guest);
        let mut over = false;
        let response = tokio::select! {
            biased;
            response = &mut response => response.ok(),
            ended = &mut guest => {
                over = true;
                ended.map_err(|error| ending.failure(&error))?;
                response.try_recv().ok()
            }
        };
        let Some(response) = response else {
            // The way to answer was dropped; how the component ends says why.
            if !over {
                guest.await.map_err(|error| ending.failure(&error))?;
            }
            return Err(Failure::worded("NoResponse", "the component ended without a response"));
        };
        let (head, mut body): (_, HyperOutgoingBody) = response.map_err(|code| refused(&code))?.into_parts();
        taker.head(head.status, &head.headers);
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                ended = &mut guest, if !over => {
                    over = true;
                    ended.map_err(|error| ending.failure(&error))?;
                    continue;
                }
            };
            match frame {
                None => break,
                // The component waits meanwhile: it shall not run ahead of its reader.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => taker.data(data).await?,
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    if !over {
                        guest.await.map_err(|error| ending.failure(&error))?;
                    }
                    return Err(Failure::worded("BadResponse", &format!("the response's body broke off: {error}")));
                }
            }
        }
        if over { Ok(()) } else { guest.await.map_err(|error| ending.failure(&error)) }
    }
}

/// A request no component could be given.
pub(crate) fn bad_request(error: &http::Error) -> Failure {
    Failure::worded("BadRequest", &format!("the request cannot be handed on: {error}"))
}

fn refused(code: &ErrorCode) -> Failure {
    Failure::worded("ErrorResponse", &format!("the component answered with the error {code:?}"))
}
