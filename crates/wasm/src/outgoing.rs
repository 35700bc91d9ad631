//! Requests a guest sends.
//!
//! They leave from the cell's own network and meet the same rules as those of any other program there. `https` takes a
//! TLS of the platform's own, which there is none of yet: such a request is refused, a guest may bring its own TLS over
//! sockets.

use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// How long connecting may take when the guest does not say. The call's deadline ends it in any case.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the head of the response may take when the guest does not say.
const FIRST_BYTE_PATIENCE: Duration = Duration::from_secs(600);

/// How a guest's requests are sent.
pub(crate) struct Outgoing;

/// What becomes of a request's body, told beside the response.
type Transfer = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _transfer: Transfer,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Transfer), Error>> + Send> {
        Box::new(send(request, options))
    }
}

async fn send(mut request: Request<WasiBody>, options: Option<RequestOptions>) -> Result<(Response<WasiBody>, Transfer), Error> {
    if request.uri().scheme() == Some(&Scheme::HTTPS) {
        return Err(Error::InternalError(Some(
            "https is not supported here; use http, or TLS of your own over a socket".to_owned(),
        )));
    }
    let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
    let address = (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(80));
    let (connect, first_byte) = options.map_or((None, None), |options| (options.connect_timeout, options.first_byte_timeout));
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
        Ok::<_, Error>(hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?)
    };
    let connected = timeout(connect.unwrap_or(CONNECT_PATIENCE), connecting).await;
    let (mut sender, connection) = connected.map_err(|_| Error::ConnectionTimeout)??;
    *request.uri_mut() = request.uri().path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    let connection = tokio::spawn(connection);
    let response = timeout(first_byte.unwrap_or(FIRST_BYTE_PATIENCE), sender.send_request(request)).await;
    let response = response.map_err(|_| Error::ConnectionReadTimeout)??;
    let transfer: Transfer = Box::new(async move {
        // Ends with the response's body. A task that was aborted is one nobody waits for.
        connection.await.unwrap_or(Ok(())).map_err(Error::from)
    });
    Ok((response.map(|body| body.map_err(Error::from).boxed_unsync()), transfer))
}
