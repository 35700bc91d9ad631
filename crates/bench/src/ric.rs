//! AWS Lambda's own clients behind a runtime API that does nothing else: what fetching calls over HTTP costs at least.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};

/// A call that waits for a client to fetch it.
struct Call {
    id: String,
    answer: oneshot::Sender<Bytes>,
}

/// Calls on their way from callers to clients and back.
struct Desk {
    put: mpsc::UnboundedSender<Call>,
    fetch: tokio::sync::Mutex<mpsc::UnboundedReceiver<Call>>,
    running: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
    last: AtomicU64,
}

/// Starts the desk in a thread of its own. Callers' port, and the port of the runtime API.
pub(crate) fn desk() -> Result<(u16, u16)> {
    let (callers, clients) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let ports = (callers.local_addr()?.port(), clients.local_addr()?.port());
    callers.set_nonblocking(true)?;
    clients.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Lives as long as the process, as its callers do.
    std::thread::Builder::new().name("runtime-api".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (put, fetch) = mpsc::unbounded_channel();
            let desk = Arc::new(Desk { put, fetch: fetch.into(), running: Mutex::default(), last: AtomicU64::new(0) });
            let (from_callers, from_clients) = (Arc::clone(&desk), desk);
            tokio::join!(
                serve(callers, move |request| call(Arc::clone(&from_callers), request)),
                serve(clients, move |request| runtime_api(Arc::clone(&from_clients), request)),
            )
        })
    })?;
    Ok(ports)
}

/// Answers every request on `listener` with `answer`.
async fn serve<F, A>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener).expect("the listener is non-blocking");
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async { Ok::<_, Infallible>(answered.await) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// A caller's request becomes a call and waits for its answer.
async fn call(desk: Arc<Desk>, _: Request<Incoming>) -> Response<Full<Bytes>> {
    let id = desk.last.fetch_add(1, Ordering::Relaxed).to_string();
    let (answer, answered) = oneshot::channel();
    // Whatever cannot be answered gets an empty body, which the caller refuses.
    let _ = desk.put.send(Call { id, answer });
    Response::new(Full::new(answered.await.unwrap_or_default()))
}

/// `GET …/invocation/next` and `POST …/invocation/{id}/response` of the Lambda runtime API (2018-06-01).
async fn runtime_api(desk: Arc<Desk>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let running = || desk.running.lock().unwrap_or_else(PoisonError::into_inner);
    if request.method() == Method::GET {
        let Some(call) = desk.fetch.lock().await.recv().await else { return Response::default() };
        let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
        for (name, value) in [
            ("lambda-runtime-aws-request-id", call.id.as_str()),
            ("lambda-runtime-deadline-ms", "4102444800000"),
            ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:local:0:function:hello"),
            ("content-type", "application/json"),
        ] {
            response.headers_mut().insert(name, value.parse().expect("digits and words are a header's value"));
        }
        running().insert(call.id, call.answer);
        return response;
    }
    let id = request.uri().path().split('/').rev().nth(1).unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if let Some(answer) = running().remove(&id) {
        let _ = answer.send(body);
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}
