//! Key sets that are somewhere else: fetched when they are first needed, and again as they age or a token names a key that is
//! not among them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dunlin_auth::{Claims, TokenError, TokenKeys};
use dunlin_outbound::Outbound;
use http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jwt::denied;
use crate::error::Problem;

/// How old keys may be before they are fetched anew.
const AGE_MAX: Duration = Duration::from_secs(300);
/// How often they are fetched at most, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(10);
/// How long keys are used that cannot be fetched anew. Then nobody is let in.
const STALE_MAX: Duration = Duration::from_secs(3600);

/// A key set at an address.
pub(super) struct Fetched {
    address: String,
    known: ArcSwapOption<(Instant, TokenKeys)>,
    /// When it was last asked for. Held while it is.
    asked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Fetched {
    pub(super) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), known: ArcSwapOption::empty(), asked: Mutex::default() }
    }

    /// What a token says, if one of the keys made it.
    pub(super) async fn verify(&self, token: &str, outbound: &Outbound) -> Result<Claims, Problem> {
        let known = match self.known(AGE_MAX) {
            Some(known) => known,
            None => self.ask(AGE_MAX, outbound).await?,
        };
        let verdict = match known.1.verify(token) {
            Err(TokenError::UnknownKey) => self.ask(PAUSE, outbound).await?.1.verify(token),
            verdict => verdict,
        };
        verdict.map_err(|error| denied(&error.to_string()))
    }

    fn known(&self, age_max: Duration) -> Option<Arc<(Instant, TokenKeys)>> {
        self.known.load_full().filter(|known| known.0.elapsed() < age_max)
    }

    /// Fetches keys unless there are some of that age by now, or it was just tried.
    async fn ask(&self, age_max: Duration, outbound: &Outbound) -> Result<Arc<(Instant, TokenKeys)>, Problem> {
        let mut asked = self.asked.lock().await;
        if let Some(known) = self.known(age_max) {
            return Ok(known);
        }
        if asked.is_none_or(|at| at.elapsed() >= PAUSE) {
            *asked = Some(Instant::now());
            match self.fetch(outbound).await {
                Ok(keys) => self.known.store(Some(Arc::new((Instant::now(), keys)))),
                Err(why) => tracing::warn!(address = self.address, why, "a key set cannot be fetched"),
            }
        }
        self.known(STALE_MAX).ok_or_else(|| {
            let message = "the key set that tokens are checked with cannot be fetched now";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled", message)
        })
    }

    async fn fetch(&self, outbound: &Outbound) -> Result<TokenKeys, String> {
        let bytes = outbound.get(&self.address).await.map_err(|error| error.to_string())?;
        let jwks = serde_json::from_slice(&bytes).map_err(|_| "it is no JSON".to_owned())?;
        TokenKeys::read(&jwks, "jwks").map_err(|invalid| invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server of key sets: the answer is `body` while there is one, and how often it was asked.
    async fn server(body: Arc<std::sync::Mutex<Option<String>>>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                count.fetch_add(1, Ordering::Relaxed);
                let answer = match &*body.lock().unwrap() {
                    Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                    None => "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn keys_are_fetched_once_and_not_for_every_unknown_name() {
        let keys = json!({"keys": [{"kty": "oct", "k": "A".repeat(43), "kid": "one"}]}).to_string();
        let body = Arc::new(std::sync::Mutex::new(Some(keys)));
        let (address, asked) = server(Arc::clone(&body)).await;
        let (fetched, outbound) = (Fetched::new(&address), Outbound::new(true));
        // {"alg":"HS256","kid":"two"} and {"alg":"HS256","kid":"one"}, with no signature.
        let (unknown, known) = ("eyJhbGciOiJIUzI1NiIsImtpZCI6InR3byJ9.e30.", "eyJhbGciOiJIUzI1NiIsImtpZCI6Im9uZSJ9.e30.");
        for _ in 0..5 {
            let refused = fetched.verify(known, &outbound).await.expect_err("no signature");
            assert!(format!("{refused:?}").contains("signature"), "{refused:?}");
        }
        for _ in 0..5 {
            let refused = fetched.verify(unknown, &outbound).await.expect_err("no such key");
            assert!(format!("{refused:?}").contains("kid"), "{refused:?}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // What cannot be fetched lets nobody in, and is not asked for again and again.
        *body.lock().unwrap() = None;
        let broken = Fetched::new(&address);
        for _ in 0..5 {
            let refused = broken.verify(known, &outbound).await.expect_err("no keys");
            assert!(format!("{refused:?}").contains("503"), "{refused:?}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
