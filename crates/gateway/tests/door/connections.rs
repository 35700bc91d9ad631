//! Clients that are slow, many, half gone, or there when the door closes.

use std::time::Duration;

use dunlin_gateway::{Closed, Config};
use dunlin_model::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{ANYBODY, Answered, Door, HOST, Script, open, open_with, read_to_end};

async fn impatient(script: Script) -> Door {
    let config = Config {
        connections_max: 2,
        head_patience: Duration::from_millis(100),
        idle_max: Duration::from_millis(300),
        body_patience: Duration::from_millis(100),
        ..Config::default()
    };
    open_with(script, "python3.10", ANYBODY, config, Limits::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_never_ends_is_answered_408() {
    let door = impatient(Script::Value("{}")).await;
    let text = door.exchange(b"GET / HTTP/1.1\r\nhost: loc").await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_comes_is_not_waited_for() {
    let door = impatient(Script::Value("{}")).await;
    let text = door.exchange(format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 10\r\n\r\nabc").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert_eq!(door.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_without_a_word() {
    let door = impatient(Script::Value("{}")).await;
    assert_eq!(door.exchange(b"").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_does_not_run_while_a_function_does() {
    let door = impatient(Script::Hang).await;
    let mut socket = door.connect().await;
    socket.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.expect("the door listens");
    door.house.started.acquire().await.expect("never closed").forget();
    let longer_than_idle = tokio::time::timeout(Duration::from_millis(600), door.house.dropped.acquire()).await;
    assert!(longer_than_idle.is_err(), "the call was dropped while its client waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_too_many_is_told_so() {
    let door = impatient(Script::Hang).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = door.connect().await;
        socket.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.expect("the door listens");
        held.push(socket);
    }
    door.house.started.acquire_many(2).await.expect("never closed").forget();
    let answered = Answered::parse(&read_to_end(&mut door.connect().await).await);
    assert_eq!(answered.status, 503);
    assert!(answered.body.contains("ResourceThrottled"), "{answered:?}");
    // Room comes back when somebody leaves.
    drop(held);
    door.house.dropped.acquire_many(2).await.expect("never closed").forget();
    loop {
        let text = door.exchange(b"GET /-/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        if text.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_takes_its_call_with_it() {
    let door = open(Script::Hang, "python3.10").await;
    let mut socket = door.connect().await;
    socket.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.expect("the door listens");
    door.house.started.acquire().await.expect("never closed").forget();
    drop(socket);
    tokio::time::timeout(Duration::from_secs(10), door.house.dropped.acquire())
        .await
        .expect("the call was dropped")
        .expect("never closed")
        .forget();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_have_limits() {
    let door = open(Script::Value("{}"), "python3.10").await;
    let many = (0..101).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let large = format!("x: {}\r\n", "y".repeat(64 << 10));
    let long = "x".repeat(16 << 10);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{large}\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), 414),
    ] {
        let answered = Answered::parse(&door.exchange(request.as_bytes()).await);
        assert_eq!(answered.status, status, "{answered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_door_lets_calls_end_and_idle_clients_go() {
    let door = open_with(Script::Echo(http::Response::builder), "custom", ANYBODY, Config::default(), Limits::default()).await;
    let mut idle = door.connect().await;
    let mut busy = door.connect().await;
    busy.write_all(format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 4\r\n\r\nab").as_bytes())
        .await
        .expect("the door listens");
    door.house.started.acquire().await.expect("never closed").forget();
    let address = door.address;
    let closing = door.begin_to_close();
    assert_eq!(idle.read(&mut [0; 16]).await.expect("a clean end"), 0);
    drop(idle);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "a closed door accepts nobody");
    busy.write_all(b"cd").await.expect("the call goes on");
    let text = read_to_end(&mut busy).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("abcd"), "{text}");
    drop(busy);
    assert_eq!(closing.await.expect("the door does not panic"), Closed { interrupted: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlives_the_grace_is_cut_off_and_counted() {
    let config = Config { grace: Duration::from_millis(50), ..Config::default() };
    let door = open_with(Script::Hang, "python3.10", ANYBODY, config, Limits::default()).await;
    let mut socket = door.connect().await;
    socket.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.expect("the door listens");
    door.house.started.acquire().await.expect("never closed").forget();
    assert_eq!(door.close().await, Closed { interrupted: 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_doors_memory_are_refused_until_there_is_room_again() {
    let config = Config { body_bytes_in_flight_max: 512 << 10, ..Config::default() };
    let door = open_with(Script::Hang, "python3.10", ANYBODY, config, Limits::default()).await;
    let body = "x".repeat(100 << 10);
    let request = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut first = door.connect().await;
    first.write_all(request.as_bytes()).await.expect("the door listens");
    door.house.started.acquire().await.expect("never closed").forget();
    // The first is held while its function runs, so there is no room for a second.
    let mut second = door.connect().await;
    second.write_all(request.as_bytes()).await.expect("the door listens");
    let refused = Answered::parse(&read_to_end(&mut second).await);
    assert_eq!((refused.status, refused.code().as_str()), (503, "ResourceThrottled"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(first);
    door.house.dropped.acquire().await.expect("never closed").forget();
    let mut third = door.connect().await;
    third.write_all(request.as_bytes()).await.expect("the door listens");
    door.house.started.acquire().await.expect("never closed").forget();
}
