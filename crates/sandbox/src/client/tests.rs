use std::os::fd::AsFd;
use std::thread;

use dunlin_model::InterpreterId;

use super::*;
use crate::Step;
use crate::protocol::REQUEST_MAX;

/// The supervisor's end, driven by a test on a thread.
struct Supervisor(OwnedFd);

impl Supervisor {
    fn hear(&self) -> Request {
        let mut buffer = [0; REQUEST_MAX];
        let (length, _) = seqpacket::receive(&self.0, &mut buffer).unwrap();
        Request::decode(&buffer[..length]).unwrap()
    }

    fn say(&self, message: &Message) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let descriptors = vec![null.as_fd(); message.descriptors()];
        seqpacket::send(&self.0, &message.encode(), &descriptors).unwrap();
    }
}

fn connect() -> (Client, Supervisor) {
    let (ours, theirs) = seqpacket::pair().unwrap();
    (Client::new(theirs).unwrap(), Supervisor(ours))
}

fn killed() -> Ended {
    Ended { exit: Exit::Signal(9), out_of_memory: false, cpu_us: 5 }
}

#[tokio::test]
async fn answers_find_their_askers_in_any_order() {
    let (client, supervisor) = connect();
    let answering = thread::spawn(move || {
        let (first, second) = (supervisor.hear(), supervisor.hear());
        for request in [&second, &first] {
            let Ask::SetCpu { cpu_millis, .. } = request.ask else { panic!("{request:?}") };
            match cpu_millis {
                1 => supervisor.say(&Message::Done { id: request.id }),
                _ => supervisor.say(&Message::Refused { id: request.id, why: Refusal::NoSuchCell }),
            }
        }
    });
    let (one, two) = tokio::join!(client.set_cpu(CellId(3), 1), client.set_cpu(CellId(3), 2));
    assert!(one.is_ok());
    assert!(matches!(two, Err(BindError::NoSuchCell(CellId(3)))));
    answering.join().unwrap();
    // The other end is closed now.
    assert!(matches!(client.set_cpu(CellId(3), 1).await, Err(BindError::Gone)));
}

#[tokio::test]
async fn an_end_is_told_once_and_remembered() {
    let (client, supervisor) = connect();
    let answering = thread::spawn(move || {
        let made = supervisor.hear();
        supervisor.say(&Message::Made { id: made.id, cell: CellId(4) });
        let end = supervisor.hear();
        supervisor.say(&Message::Ended { cell: CellId(4), ended: killed() });
        supervisor.say(&Message::Done { id: end.id });
        supervisor
    });
    let cell = client.make(CellKind::Launcher, Net::Loopback).await.unwrap();
    assert_eq!(client.end(cell.id).await.unwrap(), killed());
    assert_eq!(*cell.ended.borrow(), Some(killed()));
    let _supervisor = answering.join().unwrap();
    assert_eq!(client.end(cell.id).await.unwrap(), killed());
    assert!(matches!(client.end(CellId(5)).await, Err(EndError::NoSuchCell(CellId(5)))));
}

#[tokio::test]
async fn everyone_learns_that_the_supervisor_is_gone() {
    let (client, supervisor) = connect();
    let answering = thread::spawn(move || {
        let made = supervisor.hear();
        supervisor.say(&Message::Made { id: made.id, cell: CellId(4) });
        supervisor.hear();
    });
    let mut cell = client.make(CellKind::Python(InterpreterId(0)), Net::Internet).await.unwrap();
    let error = client.make(CellKind::Python(InterpreterId(0)), Net::Internet).await.unwrap_err();
    assert!(matches!(error, MakeError::Gone), "{error}");
    let ended = cell.ended.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(ended.exit, Exit::Unknown);
    assert!(matches!(client.end(cell.id).await, Err(EndError::Gone)));
    answering.join().unwrap();
}

#[tokio::test]
async fn a_cell_nobody_waits_for_is_ended() {
    let (client, supervisor) = connect();
    let asked = {
        let client = client.clone();
        tokio::spawn(async move { client.make(CellKind::Launcher, Net::Loopback).await })
    };
    let (supervisor, made) = tokio::task::spawn_blocking(move || {
        let made = supervisor.hear();
        (supervisor, made)
    })
    .await
    .unwrap();
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    supervisor.say(&Message::Made { id: made.id, cell: CellId(9) });
    let end = tokio::task::spawn_blocking(move || supervisor.hear()).await.unwrap();
    assert_eq!(end.ask, Ask::End { cell: CellId(9) });
}

#[tokio::test]
async fn a_refusal_says_what_failed() {
    let (client, supervisor) = connect();
    let answering = thread::spawn(move || {
        let request = supervisor.hear();
        let why = Refusal::Failed { step: Step::Cgroup, errno: libc::ENOSPC };
        supervisor.say(&Message::Refused { id: request.id, why });
    });
    let error = client.make(CellKind::Launcher, Net::Loopback).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot set up the cgroup");
    let MakeError::Failed { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
    answering.join().unwrap();
}

#[tokio::test]
async fn a_packet_that_is_no_message_closes_the_client() {
    let (client, supervisor) = connect();
    seqpacket::send(&supervisor.0, b"what?", &[]).unwrap();
    assert!(matches!(client.discard_tree(Digest([1; 32])).await, Err(BindError::Gone)));
}
