//! What a warm call costs on the host's side, with a guest that answers at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{InterpreterId, RequestId};
use dunlin_runtime::{BootPlan, CallContext, Guest, Payload};
use dunlin_sandbox::testing::Fake;
use dunlin_sandbox::{CellKind, Net, Sandboxes};
use tokio::time::Instant;

/// The promise is 100 µs; the bound leaves room for a machine that is busy with other tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_call_costs_little_more_than_two_switches() {
    let (fake, mut insides) = Fake::new();
    let cell = fake.make(CellKind::Python(InterpreterId(0)), Net::Loopback).await.unwrap();
    let mut inside = insides.recv().await.unwrap();
    std::thread::spawn(move || {
        let mut ready = vec![16, 0, 0, 0];
        ready.resize(32, 0);
        inside.channel.write_all(&ready).unwrap();
        let mut bytes = vec![0; 4096];
        // Small frames come in one read each: the host writes them at once.
        while let Ok(n @ 1..) = inside.channel.read(&mut bytes) {
            assert!(n > 32);
            let mut answer = bytes[..32].to_vec();
            answer[0] = 18;
            answer[8..16].copy_from_slice(&[0, 0, 0, 0, 2, 0, 0, 0]);
            answer.extend(b"{}");
            if inside.channel.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let guest = Arc::new(Guest::boot(cell, BootPlan::Zygote, Instant::now() + Duration::from_secs(10)).await.unwrap());
    let call = || CallContext {
        request_id: RequestId::random(),
        deadline_ms: 0,
        retry_count: 0,
        capture_tail: false,
        takes_parts: false,
        http_base: None,
    };
    // On a worker thread, as calls are served.
    let worst = tokio::spawn(async move {
        let mut times = Vec::new();
        for _ in 0..2000 {
            let start = std::time::Instant::now();
            let deadline = Instant::now() + Duration::from_secs(10);
            guest.invoke(&call(), Payload::Event("{}".into()), deadline).await.unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        times
    })
    .await
    .unwrap();
    let (best, median) = (worst[20], worst[1000]);
    eprintln!("warm call: 1st percentile {best:?}, median {median:?}, 99th {:?}", worst[1980]);
    assert!(best < Duration::from_micros(500), "{best:?}");
}
