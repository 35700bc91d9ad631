//! Runs `runtimes/conformance/cases` over the host side of the wire, with bootstraps started directly: no walls, no
//! privileges. What is compared is what a caller would get.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod case;
mod compare;
mod dotnet;
mod go;
mod java;
mod lambda;
mod stand_in;
mod toolchain;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use dunlin_model::{InstanceId, InterpreterId, RequestId};
use dunlin_runtime::{Answer, Answered, BootPlan, CallContext, CallError, Guest, LogLine, LogSink, StartError};
use dunlin_sandbox::testing::Fake;
use dunlin_sandbox::{CellKind, Net, Sandboxes};
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::time::Instant;

use case::{Call, Case, Language};
use compare::{Outcome, Seen};

/// For everything that has no shorter time of its own.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, line: LogLine<'_>) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(line.text).into_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_conforms() {
    all_cases(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_conforms() {
    all_cases(Language::Node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_conforms() {
    all_cases(Language::Java).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_conforms() {
    all_cases(Language::Php).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dotnet_conforms() {
    all_cases(Language::Dotnet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_conforms() {
    all_cases(Language::Go).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_for_lambda_conform() {
    all_cases(Language::Provided).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_servers_conform() {
    all_cases(Language::Custom).await;
}

#[test]
fn the_suite_is_as_large_as_it_claims() {
    let of = |language| Case::all().iter().filter(|case| case.files(language).is_some()).count();
    let counts = [
        (Language::Python, 50),
        (Language::Node, 55),
        (Language::Java, 60),
        (Language::Php, 30),
        (Language::Dotnet, 30),
        (Language::Go, 35),
        (Language::Provided, 35),
        (Language::Custom, 20),
    ];
    for (language, least) in counts {
        assert!(of(language) >= least, "{language:?} has {}", of(language));
    }
}

async fn all_cases(language: Language) {
    let mut problems = Vec::new();
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| case.files(language).is_some()).collect();
    if let Some(missing) = toolchain::missing(language) {
        return toolchain::skip(language, cases.len(), &missing);
    }
    let prepared: Vec<(Case, TempDir)> = cases
        .into_iter()
        .map(|case| {
            let code = tempfile::tempdir().unwrap();
            case.write(language, code.path());
            (case, code)
        })
        .collect();
    match language {
        Language::Java => java::compile(prepared.iter().map(|(_, code)| code.path())),
        Language::Dotnet => prepared.iter().for_each(|(_, code)| dotnet::compile(code.path())),
        Language::Go => go::build(&prepared),
        Language::Provided => prepared.iter().for_each(|(_, code)| lambda::complete(code.path())),
        Language::Python | Language::Node | Language::Php | Language::Custom => {}
    }
    for (case, code) in &prepared {
        if let Err(problem) = run(case, code, language).await {
            problems.push(format!("{language:?}: {}: {problem}", case.name()));
        }
    }
    assert!(problems.is_empty(), "{} cases failed:\n{}", problems.len(), problems.join("\n"));
}

async fn run(case: &Case, code: &TempDir, language: Language) -> Result<(), String> {
    let (fake, mut insides) = Fake::new();
    let kind = if language == Language::Python { CellKind::Python(InterpreterId(0)) } else { CellKind::Launcher };
    let cell = fake.make(kind, Net::Loopback).await.map_err(|error| error.to_string())?;
    let inside = insides.recv().await.ok_or("no inside")?;
    let _process = stand_in::start(language, inside, code.path().to_owned(), fake.clone());
    let plan = match language {
        Language::Python => BootPlan::Zygote,
        Language::Node => BootPlan::Bootstrap { language: dunlin_model::Language::Node, program: "node".into(), memory_mb: 128 },
        Language::Java => BootPlan::Bootstrap { language: dunlin_model::Language::Java, program: "java".into(), memory_mb: 0 },
        Language::Php => BootPlan::Bootstrap { language: dunlin_model::Language::Php, program: "php".into(), memory_mb: 0 },
        Language::Dotnet => {
            let program = dotnet::program().to_str().unwrap().into();
            BootPlan::Bootstrap { language: dunlin_model::Language::Dotnet, program, memory_mb: 0 }
        }
        Language::Go | Language::Provided | Language::Custom => BootPlan::Custom,
    };
    let guest = Guest::boot(cell, plan, Instant::now() + PATIENCE).await.map_err(|error| format!("boot: {error}"))?;
    let lines = Arc::new(Lines::default());
    let spec = case.spec(language, code.path(), InstanceId::random(), lines.clone());
    let sandboxes: Arc<dyn Sandboxes> = Arc::new(fake);
    let place = code.path().to_str().expect("a temporary directory has a plain name");

    let patience = case.load().and_then(|load| load["deadlineMs"].as_u64()).map_or(PATIENCE, Duration::from_millis);
    // As the pool does with a cell that waits for its function.
    guest.rehearse().await;
    guest.prepare(&spec).await;
    let outcome = match guest.load(&sandboxes, &spec, Instant::now() + patience).await.map_err(|failed| failed.error) {
        Ok(_) => Outcome::Answer(Vec::new()),
        Err(StartError::Function(error)) => Outcome::error(error.error_type.as_str(), error.body),
        Err(StartError::Exited(ended)) => Outcome::exited(&ended),
        Err(StartError::TimedOut) => Outcome::named("TimedOut"),
        Err(StartError::FileNotFound) => Outcome::named("FileNotFound"),
        Err(StartError::FilePermission) => Outcome::named("FilePermission"),
        Err(other) => return Err(format!("load: {other:?}")),
    };
    let seen =
        Seen { outcome, lines: std::mem::take(&mut *lines.0.lock().unwrap()), spent: guest.is_spent(), code: place, request: "" };
    match (case.load(), &seen.outcome) {
        (Some(expected), _) => return seen.check(expected, language).map_err(|problem| format!("load: {problem}")),
        (None, Outcome::Answer(_)) => {}
        (None, other) => return Err(format!("load: {other:?}; log {:?}", seen.lines)),
    }
    let calls = case.calls(language);
    if case.together() {
        let all = calls.iter().map(|call| perform(&guest, call, &lines, place));
        for (at, (seen, call)) in join_all(all).await.into_iter().zip(&calls).enumerate() {
            seen.check(call.expected(), language).map_err(|problem| format!("call {}: {problem}", at + 1))?;
        }
        return Ok(());
    }
    for (at, call) in calls.iter().enumerate() {
        let seen = perform(&guest, call, &lines, place).await;
        seen.check(call.expected(), language).map_err(|problem| format!("call {}: {problem}", at + 1))?;
    }
    Ok(())
}

async fn perform<'a>(guest: &Guest, call: &Call<'_>, lines: &Lines, code: &'a str) -> Seen<'a> {
    let request = RequestId::random();
    let left = call.patience().unwrap_or(PATIENCE);
    let context = CallContext {
        request_id: request.clone(),
        deadline_ms: (SystemTime::now() + left).duration_since(SystemTime::UNIX_EPOCH).map_or(0, |end| end.as_millis() as i64),
        retry_count: 0,
        capture_tail: false,
        takes_parts: call.deed() == "stream",
        http_base: None,
    };
    let deadline = Instant::now() + left;
    let result = match call.deed() {
        "initialize" => guest.initialize(&context, deadline).await.map(|_| Vec::new()).map_err(|failed| failed.error),
        "preStop" => guest.pre_stop(&context, deadline).await.map(|()| Vec::new()),
        _ => match guest.invoke(&context, call.payload(), deadline).await {
            Ok(Answered { answer: Answer::Event(bytes), .. }) => Ok(bytes.to_vec()),
            Ok(Answered { answer: Answer::Streamed(head, body), .. }) => {
                let head = if head == "{}" { Vec::new() } else { [&head[..], b"\n"].concat() };
                let parts = body.collect().await.map(|body| [head, body.to_bytes().to_vec()].concat());
                parts.map_err(|error| *error.downcast().expect("an answer in parts fails with a call's error"))
            }
            Ok(_) => panic!("an event was sent"),
            Err(failed) => Err(failed.error),
        },
    };
    let outcome = match result {
        Ok(answer) => Outcome::Answer(answer),
        Err(CallError::Function(error)) => Outcome::error(error.error_type.as_str(), error.body),
        Err(CallError::Exited(ended)) => Outcome::exited(&ended),
        Err(CallError::TimedOut) => Outcome::named("TimedOut"),
        Err(CallError::NotDelivered) => Outcome::named("NotDelivered"),
        Err(CallError::Protocol(_)) => Outcome::named("Protocol"),
        Err(CallError::BadResponse(_)) => Outcome::named("BadResponse"),
        Err(CallError::TooLarge { .. }) => Outcome::named("TooLarge"),
    };
    let lines = std::mem::take(&mut *lines.0.lock().unwrap());
    Seen { outcome, lines, spent: guest.is_spent(), code, request: Box::leak(request.to_string().into_boxed_str()) }
}
