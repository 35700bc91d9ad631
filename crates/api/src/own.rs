//! The platform's own operations: what functions printed, the records of calls, and what serves each runtime.
//!
//! `GET /2023-03-30/dunlin/logs?functionName=&requestId=&since=&until=&contains=&limit=&follow=` answers
//! `{"lines":[{"time","requestId"?,"instanceId","text"}]}`, oldest first; with `follow=true` the same lines as they come, one
//! JSON object a line, until the client goes away. `GET /2023-03-30/dunlin/records?functionName=&requestId=&since=&until=
//! &limit=&nextToken=` answers `{"records":[…],"nextToken"?}`, newest first. `GET /2023-03-30/dunlin/runtimes` answers
//! `{"runtimes":[{"runtime","language"?,"served":"exact|newer|older|own|missing","version"?,"program"?,"fix"?}],
//! "interpreters":[{"language","program","standing":"usable|unfit|broken","version","why"}]}`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{FunctionKey, FunctionName, InvalidField, RequestId};
use dunlin_runtime::{Body, BoxError};
use dunlin_store::RecordQuery;
use dunlin_telemetry::{Followed, LogEntry, LogQuery};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::{Api, Asked, json as answer};
use crate::error::ApiError;
use crate::query::Query;
use crate::wire;

/// Lines that may wait for a client that follows.
const WAITING_MAX: usize = 256;
/// How often a quiet stream sends an empty line, so that a client that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

impl Api {
    pub(crate) async fn list_logs(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let name = query.text("functionName").ok_or_else(|| InvalidField::new("functionName", "is required"))?;
        let function = self.inner.control.get_function(&asked.verified.scope, name, None)?;
        let key = asked.verified.scope.function(function.function().config.function_name.clone());
        // What a deleted namesake printed is not this function's.
        let created = function.function().created;
        let wanted = LogQuery {
            since: Some(query.time("since")?.map_or(created, |since| since.max(created))),
            until: query.time("until")?,
            request: request_id(query)?,
            contains: query.owned("contains"),
            limit: limit(query, 10_000)?,
        };
        if query.flag("follow")? {
            return Ok(self.follow_logs(&key, wanted));
        }
        self.inner.logs.flush().await;
        let entries =
            self.inner.logs.query(&key, wanted).await.map_err(|error| ApiError::internal(dunlin_model::chain(&error)))?;
        let lines: Vec<Value> = entries.iter().map(line).collect();
        Ok(answer(&json!({ "lines": lines })))
    }

    /// What is stored and then what comes, without a gap and without a line twice.
    fn follow_logs(&self, key: &FunctionKey, wanted: LogQuery) -> Response<Body> {
        let (lines, stream) = mpsc::channel(WAITING_MAX);
        let (logs, key) = (self.inner.logs.clone(), key.clone());
        let mut coming = logs.follow(&key);
        let copying = async move {
            logs.flush().await;
            let stored = logs.query(&key, wanted.clone()).await.unwrap_or_else(|error| {
                tracing::warn!(function = %key, error = %dunlin_model::chain(&error), "stored lines could not be read for a follower");
                Vec::new()
            });
            let mut sent: VecDeque<LogEntry> = stored.iter().cloned().collect();
            for entry in &stored {
                if lines.send(text_of(&line(entry))).await.is_err() {
                    return;
                }
            }
            loop {
                let next = tokio::select! {
                    next = coming.next() => next,
                    () = tokio::time::sleep(HEARTBEAT) => {
                        if lines.send(Bytes::from_static(b"\n")).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    () = lines.closed() => return,
                };
                let text = match next {
                    None => return,
                    Some(Followed::Missed(count)) => text_of(&json!({ "missed": count })),
                    Some(Followed::Entry(entry)) => {
                        // A line that was printed while the stored ones were read comes both ways.
                        if sent.back().is_some_and(|last| entry.time > last.time) {
                            sent.clear();
                        }
                        if let Some(position) = sent.iter().position(|other| *other == entry) {
                            sent.drain(..=position);
                            continue;
                        }
                        if !matches(&wanted, &entry) {
                            continue;
                        }
                        text_of(&line(&entry))
                    }
                };
                if lines.send(text).await.is_err() {
                    return;
                }
            }
        };
        let stream = Stream { lines: stream, copying: Some(Box::pin(copying)) };
        let mut response = Response::new(stream.boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        response
    }

    pub(crate) async fn list_records(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let function: Option<FunctionName> =
            query.text("functionName").map(str::parse).transpose().map_err(dunlin_control::Error::from)?;
        let after = query.owned("nextToken");
        if after.as_ref().is_some_and(|token| token.len() > 20 || !token.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(InvalidField::new("nextToken", "is invalid: pass on the nextToken of the page before, unchanged").into());
        }
        let wanted = RecordQuery {
            function,
            request: request_id(query)?,
            since: query.time("since")?,
            until: query.time("until")?,
            after,
            limit: limit(query, 1000)?,
        };
        let page = self.inner.store.records(&asked.verified.scope, &wanted).await?;
        let records = page.items.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        let records = records.map_err(|error| ApiError::internal(format!("writing a record: {error}")))?;
        Ok(answer(&wire::page("records", records, page.next)))
    }
}

/// Absent means the reader's own default, 0.
fn limit(query: &Query, max: i64) -> Result<usize, InvalidField> {
    match query.integer("limit")? {
        None => Ok(0),
        Some(limit) if (1..=max).contains(&limit) => Ok(usize::try_from(limit).unwrap_or(0)),
        Some(limit) => Err(InvalidField::new("limit", format!("must be between 1 and {max} (actual: {limit})"))),
    }
}

fn request_id(query: &Query) -> Result<Option<RequestId>, InvalidField> {
    Ok(query.text("requestId").map(str::parse).transpose()?)
}

fn matches(wanted: &LogQuery, entry: &LogEntry) -> bool {
    let contains = |part: &String| part.is_empty() || entry.text.windows(part.len()).any(|window| window == part.as_bytes());
    wanted.since.is_none_or(|since| entry.time >= since)
        && wanted.until.is_none_or(|until| entry.time < until)
        && wanted.request.as_ref().is_none_or(|request| entry.request.as_ref() == Some(request))
        && wanted.contains.as_ref().is_none_or(contains)
}

fn line(entry: &LogEntry) -> Value {
    let mut line =
        json!({ "time": precise(entry.time), "instanceId": entry.instance, "text": String::from_utf8_lossy(&entry.text) });
    if let Some(request) = &entry.request {
        line["requestId"] = json!(request);
    }
    line
}

/// Lines of one call are told apart by more than seconds.
fn precise(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn text_of(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    text.into()
}

/// A body that copies while it is read, so that it ends with its connection and needs no task of its own.
struct Stream {
    lines: mpsc::Receiver<Bytes>,
    copying: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.copying.as_mut().is_some_and(|copying| copying.as_mut().poll(context).is_ready()) {
            self.copying = None;
        }
        self.lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
