//! Signed requests to the control API, as JSON values: short enough that a test shows what it says and nothing else.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Connection, Response};

/// `credentials.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// `http://host:port`.
    pub endpoint: String,
    /// The region's name.
    pub region: String,
    /// The root account.
    pub account_id: String,
    /// The key.
    pub access_key_id: String,
    /// Its secret.
    pub access_key_secret: String,
}

/// The control API with one key.
#[derive(Clone, Debug)]
pub struct Api {
    credentials: Credentials,
}

impl Api {
    /// Uses `credentials` for every request.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }

    /// The key in use.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.credentials.endpoint.trim_start_matches("http://")
    }

    /// The headers of a signed request.
    #[must_use]
    pub fn sign(&self, method: &str, target: &str, action: &str, extra: &[(&str, &str)], body: &[u8]) -> Vec<(String, String)> {
        let key = dunlin_auth::SigningKey {
            id: self.credentials.access_key_id.clone(),
            secret: self.credentials.access_key_secret.clone(),
        };
        let mut headers: Vec<(String, String)> = vec![
            ("host".into(), self.address().into()),
            ("x-acs-action".into(), action.into()),
            ("x-acs-version".into(), "2023-03-30".into()),
        ];
        headers.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        dunlin_auth::sign(&key, method, target, &headers, body)
    }

    /// Sends one signed request on a connection of its own.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&self, method: &str, target: &str, action: &str, extra: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let headers = self.sign(method, target, action, extra, body);
        Connection::open(self.address())?.request(method, target, &headers, body)
    }

    /// A JSON operation below `/2023-03-30`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn json(&self, method: &str, path: &str, action: &str, body: &Value) -> Result<Response> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        self.send(method, &format!("/2023-03-30{path}"), action, &[("content-type", "application/json; charset=utf-8")], &body)
    }

    /// The same, for one that has to succeed: what it answers, nothing where that has no body.
    ///
    /// # Errors
    /// When it is refused; the error holds the answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let reply = self.json(method, path, "Test", body)?;
        ensure!(reply.status < 300, "{method} {path}: {} {}", reply.status, reply.text());
        if reply.status == 204 { Ok(Value::Null) } else { reply.json() }
    }

    /// Creates a function from `files`; `members` are added to the request.
    ///
    /// # Errors
    /// When it is refused; the error holds the answer.
    pub fn create(&self, name: &str, runtime: &str, files: &[(&str, &str)], members: Value) -> Result<Value> {
        self.create_from(name, runtime, &zip_of(files)?, members)
    }

    /// Creates a function from a base64 zip; `members` are added to the request.
    ///
    /// # Errors
    /// When it is refused; the error holds the answer.
    pub fn create_from(&self, name: &str, runtime: &str, zip: &str, members: Value) -> Result<Value> {
        let mut body = json!({
            "functionName": name, "runtime": runtime, "handler": "index.handler",
            "code": { "zipFile": zip },
        });
        if let (Some(body), Some(members)) = (body.as_object_mut(), members.as_object()) {
            body.extend(members.clone());
        }
        let reply = self.json("POST", "/functions", "CreateFunction", &body)?;
        ensure!(reply.status == 200, "CreateFunction answered {}: {}", reply.status, reply.text());
        reply.json()
    }

    /// Makes an anonymous HTTP trigger for all methods and returns the host of its URL.
    ///
    /// # Errors
    /// When it is refused; the error holds the answer.
    pub fn expose(&self, name: &str) -> Result<String> {
        let config = json!({"authType": "anonymous", "methods": ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]});
        let body = json!({"triggerName": "web", "triggerType": "http", "triggerConfig": config.to_string()});
        let reply = self.json("POST", &format!("/functions/{name}/triggers"), "CreateTrigger", &body)?;
        ensure!(reply.status == 200, "CreateTrigger answered {}: {}", reply.status, reply.text());
        let url = reply.json()?["httpTrigger"]["urlInternet"].as_str().unwrap_or_default().to_owned();
        Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
    }

    /// Calls a function through the API.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn invoke(&self, name: &str, event: &[u8]) -> Result<Response> {
        self.send(
            "POST",
            &format!("/2023-03-30/functions/{name}/invocations"),
            "InvokeFunction",
            &[("content-type", "application/octet-stream"), ("x-fc-log-type", "Tail")],
            event,
        )
    }
}

/// A base64 zip of everything below `folder`, with the modes it has there.
///
/// # Errors
/// When something in it cannot be read.
pub fn zip_of_folder(folder: &Path) -> Result<String> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry?.path();
            let metadata = std::fs::metadata(&path)?;
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let mode = metadata.permissions().mode() & 0o777;
            let name = path.strip_prefix(folder)?.to_str().context("a file's name is no text")?;
            archive.start_file(name, zip::write::SimpleFileOptions::default().unix_permissions(mode))?;
            archive.write_all(&std::fs::read(&path)?)?;
        }
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(archive.finish()?.into_inner()))
}

/// A base64 zip of `files`; a file called `bootstrap` is executable.
///
/// # Errors
/// Never for the names a test uses.
pub fn zip_of(files: &[(&str, impl AsRef<[u8]>)]) -> Result<String> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        let mode = if name.ends_with("bootstrap") { 0o755 } else { 0o644 };
        archive.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(mode))?;
        archive.write_all(content.as_ref())?;
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(archive.finish()?.into_inner()))
}
