//! Images of registries, which here are threads of the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_testkit::image::{Image, Layer, Packing, sha256};
use dunlin_testkit::{Options, Platform};
use serde_json::{Value, json};

use crate::support::{ask, base, create, plain, request};

/// How a registry asks who is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Auth {
    #[default]
    Nobody,
    Basic,
    Token,
}

#[derive(Default)]
struct State {
    auth: Auth,
    /// By path.
    documents: BTreeMap<String, (Vec<u8>, &'static str)>,
    /// Where blobs are instead.
    blobs_at: Option<String>,
    /// Where tokens are instead.
    tokens_at: Option<String>,
    /// What was asked for, and with which authorization.
    asked: Vec<(String, String)>,
}

struct Registry {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let registry = Self { address: listener.local_addr()?.to_string(), state: Arc::default() };
        let (address, state) = (registry.address.clone(), Arc::clone(&registry.state));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A client that goes away is nobody's failure.
                let _ = serve(&socket, &address, &state);
            }
        });
        Ok(registry)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the state")
    }

    /// Offers an image; answers its reference.
    fn offer(&self, repository: &str, tag: &str, image: &Image) -> String {
        let mut state = self.state();
        for (digest, bytes) in &image.blobs {
            let document = (bytes.clone(), "application/octet-stream");
            state.documents.insert(format!("/v2/{repository}/blobs/sha256:{digest}"), document);
        }
        let manifest = (image.blobs[&image.manifest].clone(), "application/vnd.oci.image.manifest.v1+json");
        state.documents.insert(format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
        state.documents.insert(format!("/v2/{repository}/manifests/sha256:{}", image.manifest), manifest);
        format!("{}/{repository}:{tag}", self.address)
    }

    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.state().asked)
    }
}

fn serve(mut socket: &TcpStream, address: &str, state: &Mutex<State>) -> Result<()> {
    let mut lines = BufReader::new(socket).lines();
    let first = lines.next().context("a request")??;
    let target = first.split(' ').nth(1).context("a target")?.to_owned();
    let mut authorization = String::new();
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.to_owned(),
            None => break,
            _ => {}
        }
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut state = state.lock().expect("no thread panics while it holds the state");
    state.asked.push((target.clone(), authorization.clone()));
    let basic = format!("Basic {}", STANDARD.encode("puller:geheim"));
    let (status, headers, body) = if path == "/token" {
        let right = authorization == basic
            && target.contains("scope=repository%3Aprivate%2Fapp%3Apull")
            && target.contains("service=stub");
        if right {
            ("200 OK", String::new(), br#"{"token":"t-1"}"#.to_vec())
        } else {
            ("401 Unauthorized", String::new(), Vec::new())
        }
    } else {
        let wanted = match state.auth {
            Auth::Nobody => None,
            Auth::Basic => Some((basic, "Basic realm=\"stub\"".to_owned())),
            Auth::Token => {
                let realm = state.tokens_at.clone().unwrap_or_else(|| format!("http://{address}/token"));
                Some(("Bearer t-1".to_owned(), format!("Bearer realm=\"{realm}\",service=\"stub\"")))
            }
        };
        match wanted.filter(|(right, _)| authorization != *right) {
            Some((_, challenge)) => ("401 Unauthorized", format!("www-authenticate: {challenge}\r\n"), Vec::new()),
            None => match (&state.blobs_at, state.documents.get(&path)) {
                (Some(elsewhere), _) if path.contains("/blobs/") => {
                    ("307 Temporary Redirect", format!("location: {elsewhere}{path}\r\n"), Vec::new())
                }
                (_, Some((bytes, kind))) => ("200 OK", format!("content-type: {kind}\r\n"), bytes.clone()),
                (_, None) => ("404 Not Found", String::new(), Vec::new()),
            },
        }
    };
    drop(state);
    write!(socket, "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    Ok(socket.write_all(&body)?)
}

/// A platform whose operator has its registries inside.
fn platform() -> Result<Platform> {
    Platform::start(&Options { args: vec!["--fetch-inside".to_owned()], ..Options::default() })
}

fn image(word: &str) -> Result<Image> {
    Image::new(&[(base().tar(), Packing::Gzip), (Layer::new().file("word", word).tar(), Packing::Zstd)], &plain())
}

fn credentials(password: &str) -> Value {
    json!({"registryConfig": {"authConfig": {"userName": "puller", "password": password}}})
}

#[test]
fn an_image_is_pulled_and_kept_by_its_digest() -> Result<()> {
    let (platform, registry) = (platform()?, Registry::start()?);
    let one = image("one")?;
    let reference = registry.offer("team/app", "1", &one);
    let created = create(&platform, "f", &reference, &json!({}), &json!({}))?;
    let resolved = format!("{}/team/app@sha256:{}", registry.address, one.manifest);
    assert_eq!(created["customContainerConfig"]["resolvedImageUri"], json!(resolved));
    assert_eq!(ask(&platform, "f", "read /word")?, "one");
    // What a function of the account has is not pulled again.
    registry.asked();
    create(&platform, "g", &reference, &json!({}), &json!({}))?;
    assert_eq!(registry.asked(), [("/v2/team/app/manifests/1".to_owned(), String::new())]);
    // The tag moves on; a function follows when it is told to.
    registry.offer("team/app", "1", &image("two")?);
    assert_eq!(ask(&platform, "g", "read /word")?, "one");
    let update = json!({"customContainerConfig": {"image": reference}});
    let updated = platform.api.json("PUT", "/functions/g", "UpdateFunction", &update)?;
    ensure!(updated.status == 200, "{}", updated.text());
    assert_eq!((ask(&platform, "g", "read /word")?, ask(&platform, "f", "read /word")?), ("two".into(), "one".into()));
    // By its digest the first one can still be had.
    create(&platform, "h", &resolved, &json!({}), &json!({}))?;
    assert_eq!(ask(&platform, "h", "read /word")?, "one");
    Ok(())
}

#[test]
fn a_registry_that_asks_who_is_there_is_told() -> Result<()> {
    let (platform, registry) = (platform()?, Registry::start()?);
    let reference = registry.offer("private/app", "1", &image("private")?);
    for (index, auth) in [Auth::Basic, Auth::Token].into_iter().enumerate() {
        registry.state().auth = auth;
        for wrong in [json!({}), credentials("wrong")] {
            let reply = request(&platform, "f", &reference, &wrong, &json!({}))?;
            assert!(reply.status == 400 && reply.text().contains("the registry refuses access"), "{auth:?}: {}", reply.text());
        }
        let name = format!("f{index}");
        let created = create(&platform, &name, &reference, &credentials("geheim"), &json!({}))?;
        assert_eq!(created["customContainerConfig"]["registryConfig"]["authConfig"]["userName"], json!("puller"));
        assert_eq!(ask(&platform, &name, "read /word")?, "private");
        // The next one is pulled anew.
        platform.api.json("DELETE", &format!("/functions/{name}"), "DeleteFunction", &Value::Null)?;
    }
    assert!(!platform.printed().contains("geheim"), "a password is in the log");
    Ok(())
}

#[test]
fn a_redirect_is_followed_without_the_password() -> Result<()> {
    let (platform, registry, store) = (platform()?, Registry::start()?, Registry::start()?);
    let app = image("elsewhere")?;
    let reference = registry.offer("private/app", "1", &app);
    store.offer("private/app", "1", &app);
    {
        let mut state = registry.state();
        (state.auth, state.blobs_at) = (Auth::Basic, Some(format!("http://{}", store.address)));
    }
    create(&platform, "f", &reference, &credentials("geheim"), &json!({}))?;
    assert_eq!(ask(&platform, "f", "read /word")?, "elsewhere");
    let asked = store.asked();
    assert!(asked.len() == 3 && asked.iter().all(|(_, authorization)| authorization.is_empty()), "{asked:?}");
    // Around in circles is nowhere.
    registry.state().blobs_at = Some(format!("http://{}", registry.address));
    registry.offer("private/app", "2", &image("circle")?);
    let circle = format!("{}/private/app:2", registry.address);
    let reply = request(&platform, "g", &circle, &credentials("geheim"), &json!({}))?;
    assert!(reply.status == 400 && reply.text().contains("redirects too often"), "{}", reply.text());
    Ok(())
}

#[test]
fn of_an_index_the_image_for_this_machine_is_taken() -> Result<()> {
    let (platform, registry) = (platform()?, Registry::start()?);
    let (ours, theirs) = (image("ours")?, Image::on("linux", "arm64", &[(base().tar(), Packing::Gzip)], &plain())?);
    registry.offer("app", "arm", &theirs);
    registry.offer("app", "amd", &ours);
    let index = |manifests: Vec<Value>| json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
    let kind = "application/vnd.oci.image.index.v1+json";
    let both = index(vec![theirs.descriptor("linux", "arm64"), ours.descriptor("linux", "amd64")]);
    registry.state().documents.insert("/v2/app/manifests/both".to_owned(), (both.clone(), kind));
    let other = index(vec![theirs.descriptor("linux", "arm64"), theirs.descriptor("windows", "amd64")]);
    registry.state().documents.insert("/v2/app/manifests/other".to_owned(), (other, kind));
    let created = create(&platform, "f", &format!("{}/app:both", registry.address), &json!({}), &json!({}))?;
    let resolved = created["customContainerConfig"]["resolvedImageUri"].as_str().unwrap_or_default();
    assert!(resolved.ends_with(&format!("@sha256:{}", sha256(&both))), "{resolved}");
    assert_eq!(ask(&platform, "f", "read /word")?, "ours");
    let reply = request(&platform, "g", &format!("{}/app:other", registry.address), &json!({}), &json!({}))?;
    assert!(reply.status == 400 && reply.text().contains("but for linux/arm64, windows/amd64"), "{}", reply.text());
    Ok(())
}

#[test]
fn what_a_registry_gets_wrong_is_said_and_leaves_nothing() -> Result<()> {
    let (platform, registry) = (platform()?, Registry::start()?);
    let good = image("good")?;
    let reference = registry.offer("app", "1", &good);
    let stored = |platform: &Platform| -> Result<usize> { Ok(std::fs::read_dir(platform.data.join("trees"))?.count()) };
    let before = stored(&platform)?;
    let wrong = |image: &str, expected: &str| -> Result<()> {
        let reply = request(&platform, "f", image, &json!({}), &json!({}))?;
        let text = reply.text();
        assert!(
            reply.status == 400 && text.contains("customContainerConfig.image cannot be pulled: ") && text.contains(expected),
            "{expected}: {text}"
        );
        Ok(())
    };
    let layer = good.blobs.keys().find(|digest| **digest != good.manifest).context("a blob")?.clone();
    let place = format!("/v2/app/blobs/sha256:{layer}");
    let bytes = good.blobs[&layer].clone();
    let mut damaged = bytes.clone();
    damaged[10] ^= 1;
    for (blob, expected) in [
        (damaged, "its digest or its size is another"),
        (bytes[..bytes.len() - 1].to_vec(), "its digest or its size is another"),
        ([&bytes[..], b"x"].concat(), "its digest or its size is another"),
    ] {
        registry.state().documents.insert(place.clone(), (blob, ""));
        wrong(&reference, expected)?;
    }
    registry.state().documents.remove(&place);
    wrong(&reference, "no such image")?;
    wrong(&format!("{}/app:none", registry.address), "no such image")?;
    let other = "0".repeat(64);
    registry.state().documents.insert(format!("/v2/app/manifests/sha256:{other}"), (good.blobs[&good.manifest].clone(), ""));
    wrong(&format!("{}/app@sha256:{other}", registry.address), "its digest or its size is another")?;
    let huge = json!({
        "config": {"digest": format!("sha256:{layer}"), "size": 2}, "layers": [{"digest": format!("sha256:{layer}"), "size": 11u64 << 30}],
    });
    for (tag, document, expected) in [
        ("huge", huge.to_string(), "larger than 10737418240 bytes"),
        ("json", "{".to_owned(), "cannot be read"),
        ("empty", "{}".to_owned(), "there is no image for linux/amd64"),
        ("md5", r#"{"config":{"digest":"md5:0","size":1}}"#.to_owned(), "no SHA-256"),
        ("long", format!("{{\"x\":\"{}\"}}", "x".repeat(5 << 20)), "larger than 4 MiB"),
    ] {
        registry.state().documents.insert(format!("/v2/app/manifests/{tag}"), (document.into_bytes(), ""));
        wrong(&format!("{}/app:{tag}", registry.address), expected)?;
    }
    let gone = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    wrong(&format!("{gone}/app:1"), "there is no answer")?;
    assert_eq!(stored(&platform)?, before);
    Ok(())
}

#[test]
fn nothing_inside_is_asked_unless_the_operator_allows_it() -> Result<()> {
    let (platform, registry) = (Platform::fresh()?, Registry::start()?);
    registry.offer("app", "1", &image("inside")?);
    let port = registry.address.rsplit(':').next().context("a port")?.to_owned();
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1.2.3"] {
        let reply = request(&platform, "f", &format!("{host}:{port}/app:1"), &json!({}), &json!({}))?;
        assert!(reply.status == 400 && reply.text().contains("an address inside this network"), "{host}: {}", reply.text());
    }
    for host in ["169.254.169.254", "10.0.0.1", "192.168.0.1:5000", "100.100.100.200"] {
        let reply = request(&platform, "f", &format!("{host}/app:1"), &json!({}), &json!({}))?;
        assert!(reply.status == 400 && reply.text().contains("an address inside this network"), "{host}: {}", reply.text());
    }
    assert_eq!(registry.asked(), []);
    Ok(())
}
