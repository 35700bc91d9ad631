//! Requests that the vendor's own SDKs signed (`fixtures/record.py`), and what becomes of them when they are changed.

#![expect(clippy::unwrap_used, reason = "a broken fixture is a failed test")]

use std::sync::Arc;

use dunlin_auth::{AuthError, Clock, Config, Scheme, SigningKey, Verifier, sign_at};
use dunlin_store::{AccessKey, Memory, Store};
use http::Request;
use http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recording {
    access_key_id: String,
    access_key_secret: String,
    recorded_at: i64,
    requests: Vec<Recorded>,
}

#[derive(Clone, Deserialize)]
struct Recorded {
    client: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn recording() -> Recording {
    serde_json::from_str(include_str!("fixtures/sdk-requests.json")).expect("the fixture is what record.py writes")
}

impl Recorded {
    fn parts(&self) -> Result<Parts, http::Error> {
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.target);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(())?.into_parts().0)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn bytes(&self) -> Vec<u8> {
        // The few bodies are short; a decoder of four lines is enough.
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
        for byte in self.body.bytes().filter(|byte| *byte != b'=') {
            bits = bits << 6 | u32::try_from(digits.iter().position(|digit| *digit == byte).unwrap()).unwrap();
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
            }
        }
        bytes
    }
}

fn at(second: i64) -> Clock {
    Arc::new(move || Timestamp::from_second(second).unwrap())
}

async fn verifier_at(recording: &Recording, second: i64) -> Verifier {
    let store = Memory::new();
    let account = "1234567890123456".parse().unwrap();
    store
        .put_access_key(&AccessKey {
            id: recording.access_key_id.parse().unwrap(),
            account,
            secret: recording.access_key_secret.clone(),
        })
        .await
        .unwrap();
    Verifier::open(Arc::new(store), Config::default(), at(second)).await.unwrap()
}

#[tokio::test]
async fn what_the_sdks_sign_is_accepted_once() {
    let recording = recording();
    let verifier = verifier_at(&recording, recording.recorded_at).await;
    for client in ["python", "node"] {
        assert!(recording.requests.iter().filter(|request| request.client == client).count() >= 7, "{client}");
    }
    for request in &recording.requests {
        let what = format!("{} {} {}", request.client, request.method, request.target);
        let parts = request.parts().unwrap();
        let verified = verifier.verify(&parts).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(verified.scope.account().as_str(), "1234567890123456");
        assert_eq!(verified.body.check(&request.bytes()), Ok(()), "{what}");
        assert_eq!(verified.body.check(b"another body"), Err(AuthError::BodyMismatch), "{what}");
        assert_eq!(verifier.verify(&parts).map(|_| ()), Err(AuthError::Replayed), "{what}");
    }
}

/// A small generator, so that a failure is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }

    /// Another letter or digit in the place of one.
    fn changed(&mut self, text: &str) -> Option<String> {
        let places: Vec<usize> =
            text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()).map(|(place, _)| place).collect();
        let place = *places.get(self.below(places.len().max(1)))?;
        let mut bytes = text.as_bytes().to_vec();
        let old = bytes[place];
        while bytes[place] == old {
            bytes[place] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[self.below(62)];
        }
        String::from_utf8(bytes).ok()
    }
}

#[tokio::test]
async fn ten_thousand_changed_requests_are_all_refused() {
    let seed = 0x9e37_79b9_7f4a_7c15;
    eprintln!("seed {seed:#x}");
    let mut random = Random(seed);
    let recording = recording();
    let verifier = verifier_at(&recording, recording.recorded_at).await;
    let mut tried = 0;
    while tried < 10_000 {
        let mut request = recording.requests[random.below(recording.requests.len())].clone();
        let authorization = request.header("authorization").to_owned();
        let signed: Vec<String> = authorization
            .split("SignedHeaders=")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .unwrap()
            .split(';')
            .map(str::to_owned)
            .collect();
        let victim = signed[random.below(signed.len())].clone();
        let what = match random.below(12) {
            0 | 1 => {
                let (head, signature) = authorization.split_once("Signature=").unwrap();
                let Some(changed) = random.changed(signature) else { continue };
                request.set("authorization", &format!("{head}Signature={changed}"));
                "signature"
            }
            2 => {
                let Some(changed) = random.changed(&authorization) else { continue };
                request.set("authorization", &changed);
                "authorization"
            }
            3 | 4 => {
                let Some(changed) = random.changed(request.header(&victim)) else { continue };
                request.set(&victim, &changed);
                "a signed header's value"
            }
            5 => {
                request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&victim));
                "a signed header gone"
            }
            6 => {
                request.headers.push((victim, "more".to_owned()));
                "a signed header twice"
            }
            7 => {
                let rest: Vec<&str> = signed.iter().map(String::as_str).filter(|name| *name != victim).collect();
                let changed = authorization.replace(&signed.join(";"), &rest.join(";"));
                request.set("authorization", &changed);
                "one name less in the list"
            }
            8 => {
                let (path, query) =
                    request.target.split_once('?').map_or((request.target.as_str(), None), |(path, query)| (path, Some(query)));
                let Some(path) = random.changed(path) else { continue };
                request.target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
                "path"
            }
            9 => {
                let separator = if request.target.contains('?') { '&' } else { '?' };
                request.target = format!("{}{separator}more={}", request.target, random.below(10));
                "query"
            }
            10 => {
                request.method = ["GET", "PUT", "POST", "DELETE", "PATCH"]
                    .into_iter()
                    .filter(|method| *method != request.method)
                    .nth(random.below(4))
                    .unwrap()
                    .to_owned();
                "method"
            }
            _ => {
                request.headers.push(("x-acs-more".to_owned(), "unsigned".to_owned()));
                "an unsigned x-acs- header"
            }
        };
        // What is no request any more does not reach the verifier.
        let Ok(parts) = request.parts() else { continue };
        assert!(verifier.verify(&parts).is_err(), "accepted with another {what}: {} {:?}", request.target, request.headers);
        tried += 1;
    }
}

#[tokio::test]
async fn a_date_outside_the_window_is_refused_on_both_sides() {
    let recording = recording();
    let request = &recording.requests[0];
    let date: Timestamp = request.header("x-acs-date").parse().unwrap();
    for (offset, good) in [(0, true), (900, true), (901, false), (-900, true), (-901, false), (250_000_000_000, false)] {
        let now = date.as_second() + offset;
        if Timestamp::from_second(now).is_err() {
            continue;
        }
        let outcome = verifier_at(&recording, now).await.verify(&request.parts().unwrap());
        match outcome {
            Ok(_) => assert!(good, "{offset}"),
            Err(error) => assert_eq!((error, good), (AuthError::Skewed { window_s: 900 }, false), "{offset}"),
        }
    }
}

#[tokio::test]
async fn each_way_of_being_wrong_has_its_own_name() {
    let recording = recording();
    let verifier = verifier_at(&recording, recording.recorded_at).await;
    let outcome = |change: &dyn Fn(&mut Recorded)| {
        let mut request = recording.requests[0].clone();
        change(&mut request);
        verifier.verify(&request.parts().unwrap()).map(|_| ()).unwrap_err()
    };
    let drop =
        |name: &'static str| move |request: &mut Recorded| request.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    assert_eq!(outcome(&drop("authorization")), AuthError::Unsigned);
    assert_eq!(outcome(&drop("x-acs-date")), AuthError::MissingHeader { name: "x-acs-date" });
    assert_eq!(outcome(&drop("x-acs-signature-nonce")), AuthError::MissingHeader { name: "x-acs-signature-nonce" });
    assert_eq!(outcome(&drop("x-acs-content-sha256")), AuthError::MissingHeader { name: "x-acs-content-sha256" });
    for (value, scheme) in [
        ("FC LTAI:c2ln", "signature scheme FC"),
        ("OSS LTAI:c2ln", "signature scheme OSS"),
        ("OSS4-HMAC-SHA256 Credential=x", "signature scheme OSS"),
        ("MNS LTAI:c2ln", "signature scheme MNS"),
        ("AWS4-HMAC-SHA256 Credential=x", "signature scheme AWS4-HMAC-SHA256"),
        ("Bearer x", "bearer authentication"),
        ("ACS3-HMAC-SM3 Credential=a,SignedHeaders=b,Signature=c", "signature algorithm ACS3-HMAC-SM3"),
    ] {
        assert_eq!(
            outcome(&|request| request.set("authorization", value)),
            AuthError::SchemeNotSupported { scheme: scheme.to_owned() },
            "{value}"
        );
    }
    for value in ["ACS3-HMAC-SHA256", "ACS3-HMAC-SHA256 x", "ACS3-HMAC-SHA256 Credential=a,Credential=b,Signature=c"] {
        assert!(matches!(outcome(&|request| request.set("authorization", value)), AuthError::Malformed { .. }), "{value}");
    }
    for date in ["", "yesterday", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z", "20260102T030405Z"] {
        assert!(
            matches!(outcome(&|request| request.set("x-acs-date", date)), AuthError::Malformed { what: "x-acs-date", .. }),
            "{date}"
        );
    }
    let stranger = |request: &mut Recorded| {
        let changed = request.header("authorization").replace("LTAI-recorded-key", "LTAI-nobodys-key");
        request.set("authorization", &changed);
    };
    assert_eq!(outcome(&stranger), AuthError::UnknownAccessKey);
    assert_eq!(outcome(&|request| request.method = "PUT".to_owned()), AuthError::SignatureMismatch);
    assert_eq!(
        outcome(&|request| request.headers.push(("x-acs-date".to_owned(), "2026-01-02T03:04:05Z".to_owned()))),
        AuthError::Malformed { what: "x-acs-date", rule: "it is given more than once" }
    );
}

#[tokio::test]
async fn what_is_signed_here_is_accepted_here() {
    let recording = recording();
    let now = Timestamp::from_second(recording.recorded_at).unwrap();
    let verifier = verifier_at(&recording, recording.recorded_at).await;
    let key = SigningKey { id: recording.access_key_id.clone(), secret: recording.access_key_secret.clone() };
    for (nonce, (method, target, body)) in
        [("GET", "/", &b""[..]), ("POST", "/2023-03-30/functions/f%20g+h~/invocations?qualifier=LATEST&b=%2b+&a", b"body")]
            .into_iter()
            .enumerate()
    {
        let given = [
            ("Host".to_owned(), "127.0.0.1:7900".to_owned()),
            ("x-foo".to_owned(), "b".to_owned()),
            ("X-Foo".to_owned(), " a ".to_owned()),
        ];
        let headers = sign_at(&key, method, target, &given, body, now, &nonce.to_string());
        let request = Recorded {
            client: String::new(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body: String::new(),
        };
        let verified = verifier.verify(&request.parts().unwrap()).unwrap();
        assert_eq!(verified.body.check(body), Ok(()));
    }
}

#[tokio::test]
async fn a_nonce_is_still_known_after_a_restart() {
    let recording = recording();
    let store = Arc::new(Memory::new());
    let account = "1234567890123456".parse().unwrap();
    let key = AccessKey { id: recording.access_key_id.parse().unwrap(), account, secret: recording.access_key_secret.clone() };
    store.put_access_key(&key).await.unwrap();
    let parts = recording.requests[0].parts().unwrap();
    let open = || Verifier::open(Arc::clone(&store) as Arc<dyn Store>, Config::default(), at(recording.recorded_at));
    let before = open().await.unwrap();
    before.verify(&parts).unwrap();
    before.run(async {}).await;
    assert_eq!(open().await.unwrap().verify(&parts).map(|_| ()), Err(AuthError::Replayed));
}

#[test]
fn the_scheme_is_read_off_headers_or_query_never_off_the_path() {
    let of = |target: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Scheme::of(&request.body(()).unwrap().into_parts().0)
    };
    assert_eq!(of("/2023-03-30/functions", &[]), None);
    assert_eq!(of("/", &[("x-acs-action", "GetFunction")]), Some(Scheme::Acs3));
    assert_eq!(of("/2023-03-30/log.txt", &[("authorization", "OSS a:b")]), Some(Scheme::Oss));
    assert_eq!(of("/b/o?OSSAccessKeyId=a&Signature=b", &[]), Some(Scheme::Oss));
    assert_eq!(of("/b/o?X-Amz-Signature=b", &[]), Some(Scheme::Aws4));
    assert_eq!(of("/?Action=AssumeRole&SignatureMethod=HMAC-SHA1", &[]), Some(Scheme::Rpc));
    assert_eq!(of("/", &[("x-acs-bearer-token", "t")]), Some(Scheme::Bearer));
    assert_eq!(of("/", &[("authorization", "Basic x")]), Some(Scheme::Unknown));
}
