//! Guests that break the wire. Each scripted guest is a thread that holds the inside of a fake cell.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_model::{
    AccountId, CellId, CodePackage, Crc64, Digest, Function, FunctionConfig, FunctionKey, InstanceId, InterpreterId, RequestId,
    Revision, VersionKey,
};
use dunlin_runtime::{
    Answer, Answered, BootError, BootPlan, CallContext, CallError, Guest, LoadSpec, LogLine, LogSink, Payload, StartError,
};
use dunlin_sandbox::testing::{Fake, Inside};
use dunlin_sandbox::{CellKind, Ended, Exit, Net, Sandboxes};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

const END: u8 = 18;
const ERROR: u8 = 19;

/// A request as the guest saw it.
struct Request {
    kind: u8,
    stream: u32,
    head: Vec<u8>,
    body: Vec<u8>,
    token: [u8; 16],
}

fn frame(kind: u8, stream: u32, token: [u8; 16], head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(stream.to_le_bytes());
    bytes.extend(u32::try_from(head.len()).unwrap().to_le_bytes());
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(token);
    bytes.extend(head);
    bytes.extend(body);
    bytes
}

/// The guest's end of the channel.
struct Wire {
    channel: UnixStream,
    log: std::io::PipeWriter,
}

impl Wire {
    fn read(&mut self) -> Option<Request> {
        let mut header = [0; 32];
        self.channel.read_exact(&mut header).ok()?;
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (mut head, mut body) = (vec![0; number(8) as usize], vec![0; number(12) as usize]);
        self.channel.read_exact(&mut head).ok()?;
        self.channel.read_exact(&mut body).ok()?;
        Some(Request { kind: header[0], stream: number(4), head, body, token: header[16..].try_into().unwrap() })
    }

    fn send(&mut self, bytes: &[u8]) {
        // A host that has given up on us closes its end.
        let _ = self.channel.write_all(bytes);
    }

    fn end(&mut self, request: &Request, body: &[u8]) {
        self.send(&frame(END, request.stream, request.token, b"", body));
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, line: LogLine<'_>) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(line.text).into_owned());
    }
}

fn function(concurrency: u32) -> Arc<Function> {
    let patch: dunlin_model::FunctionPatch = serde_json::from_value(serde_json::json!({
        "functionName": "f", "runtime": "python3.10", "handler": "index.handler", "instanceConcurrency": concurrency,
        "instanceLifecycleConfig": {"initializer": {"handler": "index.init"}},
    }))
    .unwrap();
    let config: FunctionConfig = patch.create(&dunlin_model::Limits::default()).unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let code = CodePackage { digest: Digest::of(b""), checksum: Crc64(0), size: 0 };
    Arc::new(Function { config, code, function_id: "id".to_owned(), created: now, modified: now })
}

fn spec(logs: Arc<Lines>, concurrency: u32) -> LoadSpec {
    let account: AccountId = "1234567890123456".parse().unwrap();
    let function = FunctionKey::from_stored(account, "f".parse().unwrap());
    LoadSpec {
        template: false,
        instance: InstanceId::random(),
        function: self::function(concurrency),
        key: VersionKey { function, version: "LATEST".into(), revision: Revision(1) },
        qualifier: "LATEST".to_owned(),
        request: RequestId::random(),
        region: "cn-hangzhou".to_owned(),
        logs,
    }
}

fn call() -> CallContext {
    CallContext {
        request_id: RequestId::random(),
        deadline_ms: 0,
        retry_count: 0,
        capture_tail: true,
        takes_parts: false,
        http_base: None,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

struct Rig {
    fake: Fake,
    cell: CellId,
    guest: Guest,
    lines: Arc<Lines>,
}

/// A loaded guest whose inside does `script` with what comes after `Load`.
async fn loaded(script: impl FnOnce(Wire) + Send + 'static) -> Rig {
    loaded_for(1, script).await
}

/// The same for a guest that takes several calls at a time.
async fn loaded_for(concurrency: u32, script: impl FnOnce(Wire) + Send + 'static) -> Rig {
    let (fake, mut insides) = Fake::new();
    let cell = fake.make(CellKind::Python(InterpreterId(0)), Net::Loopback).await.unwrap();
    let Inside { id, channel, log, .. } = insides.recv().await.unwrap();
    std::thread::spawn(move || {
        let mut wire = Wire { channel, log };
        wire.send(&frame(16, 0, [0; 16], br#"{"runtime":"scripted"}"#, b""));
        let Some(load) = wire.read() else { return };
        assert_eq!(load.kind, 2);
        wire.end(&load, b"");
        script(wire);
    });
    let guest = Guest::boot(cell, BootPlan::Zygote, soon()).await.unwrap();
    let lines = Arc::new(Lines::default());
    let sandboxes: Arc<dyn Sandboxes> = Arc::new(fake.clone());
    guest.load(&sandboxes, &spec(lines.clone(), concurrency), soon()).await.unwrap();
    Rig { fake, cell: id, guest, lines }
}

impl Rig {
    async fn invoke(&self, event: &'static [u8]) -> Result<Answered, CallError> {
        self.guest.invoke(&call(), Payload::Event(event.into()), soon()).await.map_err(|failed| failed.error)
    }
}

fn event(answered: Answered) -> Vec<u8> {
    match answered.answer {
        Answer::Event(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// The guest answers its first call with `answer` and must be dead to the host from then on.
async fn refused(answer: impl Fn(&Request) -> Vec<u8> + Send + 'static, why: &str) {
    let rig = loaded(move |mut wire| {
        while let Some(request) = wire.read() {
            wire.send(&answer(&request));
        }
    })
    .await;
    match rig.invoke(b"x").await {
        Err(CallError::Protocol(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(rig.guest.is_spent());
    assert!(matches!(rig.invoke(b"again").await, Err(CallError::Protocol(_))));
}

#[tokio::test]
async fn an_answer_with_another_token_ends_the_guest() {
    refused(|request| frame(END, request.stream, [7; 16], b"", b"forged"), "wrong token").await;
    refused(|request| frame(END, request.stream, [0; 16], b"", b"forged"), "wrong token").await;
}

#[tokio::test]
async fn an_answer_on_another_stream_ends_the_guest() {
    refused(|request| frame(END, request.stream + 1, request.token, b"", b"forged"), "not in flight").await;
}

#[tokio::test]
async fn garbage_ends_the_guest() {
    refused(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), "unknown frame kind").await;
    refused(|_| vec![0xff; 4096], "unknown frame kind").await;
    refused(
        |request| {
            let mut bytes = frame(END, request.stream, request.token, b"", b"");
            bytes[2] = 1;
            bytes
        },
        "reserved",
    )
    .await;
}

#[tokio::test]
async fn a_huge_length_ends_the_guest_before_its_bytes_come() {
    for (at, why) in [(8, "a head of"), (12, "a body of")] {
        refused(
            move |request| {
                let mut bytes = frame(END, request.stream, request.token, b"", b"");
                bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
                bytes
            },
            why,
        )
        .await;
    }
}

#[tokio::test]
async fn a_host_only_frame_from_a_guest_ends_it() {
    for kind in [1, 2, 3, 4, 6, 7, 8, 9, 10] {
        refused(move |request| frame(kind, request.stream, request.token, b"", b""), "unknown frame kind").await;
    }
}

#[tokio::test]
async fn a_second_ready_ends_the_guest() {
    refused(|request| frame(16, request.stream, request.token, b"{}", b""), "second Ready").await;
    refused(|_| frame(16, 0, [0; 16], b"{}", b""), "not in flight").await;
}

#[tokio::test]
async fn an_error_without_a_proper_head_ends_the_guest() {
    for head in [&b""[..], b"{}", b"[]", br#"{"errorType":"Whatever"}"#, b"{\"errorType\":"] {
        refused(move |request| frame(ERROR, request.stream, request.token, head, b"{}"), "proper head").await;
    }
}

#[tokio::test]
async fn chunks_out_of_place_end_the_guest() {
    refused(|request| frame(5, request.stream, request.token, b"", b"part"), "without a Head").await;
    refused(
        |request| {
            let head = frame(17, request.stream, request.token, b"{}", b"");
            [head.clone(), head].concat()
        },
        "out of place",
    )
    .await;
}

#[tokio::test]
async fn a_second_answer_is_found_before_the_next_call_gets_one() {
    let rig = loaded(|mut wire| {
        let first = wire.read().unwrap();
        wire.end(&first, b"one");
        wire.end(&first, b"two");
        // Whatever comes next must not be answered by the frame above.
        while wire.read().is_some() {}
    })
    .await;
    assert_eq!(event(rig.invoke(b"x").await.unwrap()), b"one");
    assert!(matches!(rig.invoke(b"y").await, Err(CallError::Protocol(_))));
    assert!(rig.guest.is_spent());
}

#[tokio::test]
async fn an_answer_before_it_was_asked_for_ends_the_guest() {
    let rig = loaded(|mut wire| {
        wire.send(&frame(END, 2, [0; 16], b"", b"early"));
        while wire.read().is_some() {}
    })
    .await;
    assert!(matches!(rig.invoke(b"x").await, Err(CallError::Protocol(_))));
}

#[tokio::test]
async fn an_answer_after_the_timeout_reaches_nobody() {
    let (answer, answered) = std::sync::mpsc::channel::<()>();
    let rig = loaded(move |mut wire| {
        let late = wire.read().unwrap();
        answered.recv().unwrap();
        wire.end(&late, b"late");
        while wire.read().is_some() {}
    })
    .await;
    let deadline = Instant::now() + Duration::from_millis(20);
    let result = rig.guest.invoke(&call(), Payload::Event("x".into()), deadline).await.map_err(|failed| failed.error);
    assert!(matches!(result, Err(CallError::TimedOut)));
    answer.send(()).unwrap();
    assert!(rig.guest.is_spent());
    assert!(matches!(rig.invoke(b"next").await, Err(CallError::Protocol(_))));
}

#[tokio::test]
async fn a_guest_that_reads_nothing_holds_a_call_no_longer_than_its_deadline() {
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let rig = loaded(move |wire| {
        let _ = finished.recv();
        drop(wire);
    })
    .await;
    let deadline = Instant::now() + Duration::from_millis(50);
    let result =
        rig.guest.invoke(&call(), Payload::Event(vec![0; 8 << 20].into()), deadline).await.map_err(|failed| failed.error);
    assert!(matches!(result, Err(CallError::TimedOut)));
    drop(done);
}

#[tokio::test]
async fn an_answer_that_drips_ends_at_the_deadline() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        let bytes = frame(END, request.stream, request.token, b"", &[b'x'; 1000]);
        for byte in bytes {
            if wire.channel.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
    .await;
    let deadline = Instant::now() + Duration::from_millis(50);
    assert!(matches!(
        rig.guest.invoke(&call(), Payload::Event("".into()), deadline).await.map_err(|failed| failed.error),
        Err(CallError::TimedOut)
    ));
}

#[tokio::test]
async fn a_streamed_answer_has_a_limit_over_all_its_parts() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(17, request.stream, request.token, b"{}", b""));
        let part = frame(5, request.stream, request.token, b"", &vec![b'x'; 128 << 10]);
        while wire.channel.write_all(&part).is_ok() {}
    })
    .await;
    assert!(matches!(rig.invoke(b"").await, Err(CallError::TooLarge { limit }) if limit == 32 << 20));
    assert!(rig.guest.is_spent());
}

#[tokio::test]
async fn a_streamed_answer_is_put_together() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        let parts = [
            frame(17, request.stream, request.token, b"{}", b""),
            frame(5, request.stream, request.token, b"", b"one "),
            frame(5, request.stream, request.token, b"", b"two "),
            frame(END, request.stream, request.token, b"", b"three"),
        ];
        wire.send(&parts.concat());
        while wire.read().is_some() {}
    })
    .await;
    assert_eq!(event(rig.invoke(b"").await.unwrap()), b"one two three");
}

#[tokio::test]
async fn several_calls_in_flight_get_their_own_answers() {
    let rig = loaded(|mut wire| {
        let requests: Vec<Request> = (0..8).map(|_| wire.read().unwrap()).collect();
        for request in requests.iter().rev() {
            wire.end(request, &request.body);
        }
        while wire.read().is_some() {}
    })
    .await;
    let rig = Arc::new(rig);
    let calls: Vec<_> = (0..8u8)
        .map(|i| {
            let rig = rig.clone();
            tokio::spawn(async move {
                let answered = rig.guest.invoke(&call(), Payload::Event(vec![i; 3].into()), soon()).await.unwrap();
                assert_eq!(event(answered), [i; 3]);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_dropped_by_its_caller_spends_the_guest() {
    let rig = loaded(|mut wire| while wire.read().is_some() {}).await;
    let forgotten = tokio::time::timeout(Duration::from_millis(20), rig.invoke(b"x")).await;
    assert!(forgotten.is_err());
    assert!(rig.guest.is_spent());
}

#[tokio::test]
async fn a_guest_that_announces_its_end_gets_no_other_call() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(
            ERROR,
            request.stream,
            request.token,
            br#"{"errorType":"UnhandledInvocationError","fatal":true}"#,
            b"{}",
        ));
        while wire.read().is_some() {}
    })
    .await;
    assert!(matches!(rig.invoke(b"x").await, Err(CallError::Function(_))));
    assert!(rig.guest.is_spent());
}

#[tokio::test]
async fn a_guest_that_closes_its_channel_and_dies_has_exited() {
    let rig = loaded(|mut wire| drop(wire.read())).await;
    let ended = Ended { exit: Exit::Code(7), out_of_memory: true, cpu_us: 5 };
    let (fake, cell, dead) = (rig.fake.clone(), rig.cell, ended.clone());
    tokio::spawn(async move { fake.die(cell, dead) });
    match rig.invoke(b"x").await {
        Err(CallError::Exited(seen)) => assert_eq!(seen, ended),
        other => panic!("{other:?}"),
    }
    assert!(rig.guest.is_spent());
    assert_eq!(rig.guest.cpu_us(), 5);
}

#[tokio::test]
async fn a_call_that_a_dying_guest_left_unread_was_not_delivered() {
    // Gone before the call is written.
    let rig = loaded(drop).await;
    assert!(matches!(rig.invoke(b"x").await, Err(CallError::NotDelivered)));
    assert!(rig.guest.is_spent());
    assert!(matches!(rig.invoke(b"x").await, Err(CallError::NotDelivered)));

    // Gone while the call is in its socket, read in part at most.
    let rig = loaded(|mut wire| drop(wire.channel.read(&mut [0; 1]))).await;
    assert!(matches!(rig.invoke(b"x").await, Err(CallError::NotDelivered)));
}

#[tokio::test]
async fn of_several_calls_left_behind_none_is_called_undelivered() {
    let rig = Arc::new(loaded(|mut wire| drop(wire.read())).await);
    let calls = (0..2).map(|_| {
        let rig = Arc::clone(&rig);
        tokio::spawn(async move { rig.invoke(b"x").await })
    });
    let ended = Ended { exit: Exit::Code(7), out_of_memory: false, cpu_us: 5 };
    rig.fake.die(rig.cell, ended);
    let mut undelivered = 0;
    for call in calls.collect::<Vec<_>>() {
        undelivered += usize::from(matches!(call.await.unwrap(), Err(CallError::NotDelivered)));
    }
    assert!(undelivered <= 1, "one of the two was read");
}

#[tokio::test]
async fn a_failure_brings_what_was_printed_before_it() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.log.write_all(b"about to fail\n").unwrap();
        wire.send(&frame(ERROR, request.stream, request.token, br#"{"errorType":"UnhandledInvocationError"}"#, b"{}"));
        drop(wire.read());
        wire.log.write_all(b"last words").unwrap();
        // Silent from here on, and alive.
        drop(wire.read());
    })
    .await;
    let failed = rig.guest.invoke(&call(), Payload::Event("x".into()), soon()).await.unwrap_err();
    assert_eq!(failed.log_tail, b"about to fail\n");
    let deadline = Instant::now() + Duration::from_millis(50);
    let failed = rig.guest.invoke(&call(), Payload::Event("x".into()), deadline).await.unwrap_err();
    assert!(matches!(failed.error, CallError::TimedOut));
    assert_eq!(failed.log_tail, b"last words\n");
}

#[tokio::test]
async fn a_guest_that_closes_its_channel_and_lives_on_broke_the_wire() {
    let rig = loaded(|wire| {
        let Wire { mut channel, log } = wire;
        let _ = channel.read(&mut [0; 4096]);
        drop(channel);
        std::mem::forget(log);
    })
    .await;
    assert!(matches!(rig.invoke(b"x").await, Err(CallError::Protocol(_))));
}

#[tokio::test]
async fn everything_printed_before_an_answer_is_in_the_log_before_it_is_handed_on() {
    let rig = loaded(|mut wire| {
        while let Some(request) = wire.read() {
            for i in 0..1000 {
                writeln!(wire.log, "line {i}").unwrap();
            }
            wire.log.write_all(b"FC Invoke End RequestId: forged\nno newline").unwrap();
            wire.end(&request, b"");
        }
    })
    .await;
    for _ in 0..3 {
        let answered = rig.invoke(b"").await.unwrap();
        assert!(answered.log_tail.ends_with(b"line 999\nFC Invoke End RequestId: forged\nno newline\n"));
        let lines = std::mem::take(&mut *rig.lines.0.lock().unwrap());
        assert_eq!(lines.len(), 1004);
        assert!(lines[0].starts_with("FC Invoke Start RequestId: 1-"));
        assert_eq!(lines[1002], "no newline");
        assert!(lines[1003].starts_with("FC Invoke End RequestId: 1-"));
    }
}

#[tokio::test]
async fn a_flood_of_output_blocks_nobody_and_is_counted() {
    let rig = loaded(|mut wire| {
        while let Some(request) = wire.read() {
            let line = [&b"x".repeat(99)[..], b"\n"].concat().repeat(1000);
            for _ in 0..640 {
                wire.log.write_all(&line).unwrap();
            }
            wire.end(&request, b"done");
        }
    })
    .await;
    assert_eq!(event(rig.invoke(b"").await.unwrap()), b"done");
    let lines = rig.lines.0.lock().unwrap();
    assert!(lines.len() < 200_000, "{}", lines.len());
    assert!(lines.iter().any(|line| line.contains("of output were dropped")));
}

#[tokio::test]
async fn a_boot_without_ready_is_told_apart() {
    let boot = |script: fn(Wire)| async move {
        let (fake, mut insides) = Fake::new();
        let cell = fake.make(CellKind::Python(InterpreterId(0)), Net::Loopback).await.unwrap();
        let Inside { id, channel, log, .. } = insides.recv().await.unwrap();
        let thread = std::thread::spawn(move || script(Wire { channel, log }));
        let dies = tokio::task::spawn_blocking(move || {
            thread.join().unwrap();
            fake.die(id, Ended { exit: Exit::Code(1), out_of_memory: false, cpu_us: 0 });
        });
        let result = Guest::boot(cell, BootPlan::Zygote, Instant::now() + Duration::from_millis(200)).await;
        dies.await.unwrap();
        result.err().unwrap()
    };
    let error = boot(|wire| writeln!(&wire.log, "Traceback: no module").unwrap()).await;
    assert!(matches!(&error, BootError::Exited { printed, .. } if printed.contains("no module")), "{error:?}");
    let error = boot(|mut wire| wire.send(&frame(END, 0, [0; 16], b"", b""))).await;
    assert!(matches!(error, BootError::Protocol(_)), "{error:?}");
    let error = boot(|mut wire| drop(wire.read())).await;
    assert!(matches!(error, BootError::Silent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_launcher_that_cannot_exec_is_a_missing_or_forbidden_file() {
    for (report, expected) in [("2 No such file or directory", "FileNotFound"), ("13 Permission denied", "FilePermission")] {
        let (fake, mut insides) = Fake::new();
        let cell = fake.make(CellKind::Launcher, Net::Loopback).await.unwrap();
        let Inside { channel, log, .. } = insides.recv().await.unwrap();
        std::thread::spawn(move || {
            let mut wire = Wire { channel, log };
            let exec = wire.read().unwrap();
            assert_eq!(exec.kind, 1);
            assert!(exec.head.starts_with(b"/code\0/code/bootstrap\0"));
            wire.send(&frame(ERROR, 0, [0; 16], b"", report.as_bytes()));
        });
        let guest = Guest::boot(cell, BootPlan::Custom, soon()).await.unwrap();
        let mut spec = spec(Arc::default(), 1);
        let mut function = (*spec.function).clone();
        function.config.runtime = dunlin_model::Runtime::parse("custom").unwrap();
        spec.function = Arc::new(function);
        let sandboxes: Arc<dyn Sandboxes> = Arc::new(fake);
        let error = guest.load(&sandboxes, &spec, soon()).await.unwrap_err().error;
        assert_eq!(format!("{error:?}"), expected);
    }
}

#[tokio::test]
async fn a_guest_is_loaded_once() {
    let rig = loaded(|mut wire| while wire.read().is_some() {}).await;
    let sandboxes: Arc<dyn Sandboxes> = Arc::new(rig.fake.clone());
    let again = rig.guest.load(&sandboxes, &spec(Arc::default(), 1), soon()).await.map_err(|failed| failed.error);
    assert!(matches!(again, Err(StartError::Protocol(_))));
}

#[tokio::test]
async fn a_guest_hears_once_what_it_is_to_be() {
    for early in [true, false] {
        let (fake, mut insides) = Fake::new();
        let cell = fake.make(CellKind::Python(InterpreterId(0)), Net::Loopback).await.unwrap();
        let Inside { channel, log, .. } = insides.recv().await.unwrap();
        let guest = std::thread::spawn(move || {
            let mut wire = Wire { channel, log };
            wire.send(&frame(16, 0, [0; 16], b"{}", b""));
            let mut heads = Vec::new();
            loop {
                let request = wire.read().unwrap();
                heads.push((request.kind, request.stream == 0, request.head.starts_with(br#"{"codePath":"/code""#)));
                if request.kind == 2 {
                    wire.end(&request, b"");
                    return heads;
                }
            }
        });
        let host = Guest::boot(cell, BootPlan::Zygote, soon()).await.unwrap();
        let (sandboxes, spec): (Arc<dyn Sandboxes>, _) = (Arc::new(fake), spec(Arc::default(), 1));
        if early {
            host.rehearse().await;
            host.prepare(&spec).await;
        }
        host.load(&sandboxes, &spec, soon()).await.unwrap();
        let expected = if early { vec![(10, true, false), (9, true, true), (2, false, false)] } else { vec![(2, false, true)] };
        assert_eq!(guest.join().unwrap(), expected);
    }
}

#[tokio::test]
async fn the_initializer_gets_its_own_error_type_and_log_lines() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        assert_eq!(request.kind, 3);
        assert!(request.head.starts_with(br#"{"requestId":"1-"#));
        wire.send(&frame(
            ERROR,
            request.stream,
            request.token,
            br#"{"errorType":"UnhandledInvocationError"}"#,
            br#"{"errorMessage":"no"}"#,
        ));
        while wire.read().is_some() {}
    })
    .await;
    match rig.guest.initialize(&call(), soon()).await.map_err(|failed| failed.error) {
        Err(CallError::Function(error)) => {
            assert_eq!(error.error_type, dunlin_model::ErrorType::InitializationError);
            assert_eq!(error.body, br#"{"errorMessage":"no"}"#);
        }
        other => panic!("{other:?}"),
    }
    let lines = rig.lines.0.lock().unwrap();
    assert!(lines[0].starts_with("FC Initialize Start RequestId: 1-"));
    assert!(lines[1].starts_with("FC Initialize End RequestId: 1-") && lines[1].ends_with(", Error: Unhandled function error"));
}

/// What a caller that takes parts gets: the body, read to its end.
async fn streamed(rig: &Rig) -> Result<Vec<u8>, CallError> {
    let context = CallContext { takes_parts: true, capture_tail: false, ..call() };
    match rig.guest.invoke(&context, Payload::Event("x".into()), soon()).await.map_err(|failed| failed.error)?.answer {
        Answer::Streamed(head, body) => {
            assert_eq!(head, "{}");
            match tokio::time::timeout_at(soon(), body.collect()).await.expect("the answer ends") {
                Ok(body) => Ok(body.to_bytes().to_vec()),
                Err(error) => Err(*error.downcast().unwrap()),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn parts_are_handed_on_as_credit_is_given() {
    let part = vec![b'x'; 100 << 10];
    let rig = loaded(move |mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(17, request.stream, request.token, b"{}", b""));
        let mut credit = 256 << 10;
        for _ in 0..20 {
            while credit < part.len() + 32 {
                let granted = wire.read().unwrap();
                assert_eq!((granted.kind, granted.stream), (8, request.stream));
                credit += u32::from_le_bytes(granted.body.try_into().unwrap()) as usize;
            }
            credit -= part.len() + 32;
            wire.send(&frame(5, request.stream, request.token, b"", &part));
        }
        wire.end(&request, b"");
        while wire.read().is_some() {}
    })
    .await;
    assert_eq!(streamed(&rig).await.unwrap().len(), 20 * (100 << 10));
    assert!(!rig.guest.is_spent());
}

#[tokio::test]
async fn parts_beyond_the_credit_end_the_guest() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(17, request.stream, request.token, b"{}", b""));
        // All at once, without waiting for anybody to read: the host holds no more than the window.
        let part = frame(5, request.stream, request.token, b"", &vec![b'x'; 200 << 10]);
        wire.send(&[part.clone(), part].concat());
        while wire.read().is_some() {}
    })
    .await;
    let context = CallContext { takes_parts: true, ..call() };
    let answered = rig.guest.invoke(&context, Payload::Event("x".into()), soon()).await.unwrap();
    let noticed = async {
        while !rig.guest.is_spent() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout_at(soon(), noticed).await.expect("it is noticed although nobody reads");
    let Answer::Streamed(_, body) = answered.answer else { panic!("not in parts") };
    let error: CallError = *body.collect().await.unwrap_err().downcast().unwrap();
    assert!(matches!(&error, CallError::Protocol(why) if why.contains("without credit")), "{error:?}");
}

#[tokio::test]
async fn a_guest_that_dies_in_the_middle_of_its_answer_has_exited() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(17, request.stream, request.token, b"{}", b""));
        wire.send(&frame(5, request.stream, request.token, b"", b"half"));
    })
    .await;
    let (fake, cell) = (rig.fake.clone(), rig.cell);
    tokio::spawn(async move { fake.die(cell, Ended { exit: Exit::Code(3), out_of_memory: false, cpu_us: 0 }) });
    // It may be noticed before the answer has begun or after.
    assert!(matches!(streamed(&rig).await, Err(CallError::Exited(Ended { exit: Exit::Code(3), .. }))));
}

#[tokio::test]
async fn credit_for_a_body_that_was_not_sent_ends_the_guest() {
    refused(|request| frame(20, request.stream, request.token, b"", &1u32.to_le_bytes()), "Credit out of place").await;
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(20, request.stream, request.token, b"", &(256u32 << 10).to_le_bytes()));
        while wire.read().is_some() {}
    })
    .await;
    let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    match rig.guest.invoke(&call(), Payload::Streaming("x".into(), body), soon()).await.map_err(|failed| failed.error) {
        Err(CallError::Protocol(why)) => assert!(why.contains("Credit out of place"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_spends_a_guest_that_serves_one_at_a_time() {
    let rig = loaded(|mut wire| {
        let request = wire.read().unwrap();
        wire.send(&frame(17, request.stream, request.token, b"{}", b""));
        while wire.read().is_some() {}
    })
    .await;
    let context = CallContext { takes_parts: true, ..call() };
    let answered = rig.guest.invoke(&context, Payload::Event("x".into()), soon()).await.unwrap();
    assert!(!rig.guest.is_spent());
    drop(answered);
    assert!(rig.guest.is_spent());
}

#[tokio::test]
async fn one_of_several_calls_is_cancelled_alone() {
    let (told, mut cancelled) = tokio::sync::mpsc::unbounded_channel();
    let rig = loaded_for(2, move |mut wire| {
        let (first, second) = (wire.read().unwrap(), wire.read().unwrap());
        let (left, staying) = if first.body == b"left" { (first, second) } else { (second, first) };
        let cancel = wire.read().unwrap();
        told.send((cancel.kind, cancel.stream == left.stream)).unwrap();
        // The answer nobody waits for is taken and forgotten.
        wire.end(&left, b"late");
        wire.end(&staying, b"in time");
        while let Some(request) = wire.read() {
            wire.end(&request, b"next");
        }
    })
    .await;
    let staying = rig.invoke(b"staying");
    tokio::pin!(staying);
    let early = tokio::time::timeout(Duration::from_millis(20), async {
        tokio::select! {
            _ = rig.invoke(b"left") => panic!("nobody answered"),
            _ = &mut staying => panic!("nobody answered"),
        }
    })
    .await;
    assert!(early.is_err());
    assert_eq!(event(staying.await.unwrap()), b"in time");
    assert_eq!(cancelled.recv().await, Some((6, true)));
    assert!(!rig.guest.is_spent());
    assert_eq!(event(rig.invoke(b"x").await.unwrap()), b"next");
}

#[tokio::test]
async fn calls_that_are_left_behind_one_after_another_spend_the_guest() {
    let rig = loaded_for(2, |mut wire| while wire.read().is_some() {}).await;
    for spent in [false, true] {
        let left = tokio::time::timeout(Duration::from_millis(20), rig.invoke(b"x")).await;
        assert!(left.is_err());
        assert_eq!(rig.guest.is_spent(), spent);
    }
}
