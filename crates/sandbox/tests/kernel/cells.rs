//! Making, binding and ending cells.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use dunlin_model::{CellId, Digest, InterpreterId};
use dunlin_sandbox::{Bind, BindError, CellKind, EndError, Ended, Exit, MakeError, Net, Sandboxes};

use crate::parts::{Identity, Platform, Traces, channel, eventually, exec, read_line, read_log, small, start_raw};

pub(crate) fn a_cell_runs_a_program_from_its_code() {
    let platform = Platform::start();
    let code = platform.tree("hello.py", "print('hello from', __file__)\n");
    let cell = platform.make();
    platform.bind(&cell, Some(code));
    exec(&cell, &["python3", "/code/hello.py"]);
    assert_eq!(read_log(&cell), "hello from /code/hello.py\n");
    let ended = platform.ended(&cell);
    assert_eq!((ended.exit, ended.out_of_memory), (Exit::Code(0), false));
    assert!(ended.cpu_us > 0);
    // Ending what has ended says the same.
    assert_eq!(platform.end(&cell), ended);
    platform.stop();
}

pub(crate) fn a_bind_sets_the_limits() {
    let platform = Platform::start();
    let bind = Bind { pids: 20, tmp_bytes: 3 << 20, ..small() };
    let (printed, ended) = platform.python(
        &bind,
        "import os
tmp = os.statvfs('/tmp')
print(tmp.f_blocks * tmp.f_frsize)
children = 0
try:
    while children < 100:
        if os.fork() == 0:
            import signal; signal.pause()
        children += 1
except BlockingIOError:
    pass
print(children < 20, children > 10, flush=True)
try:
    open('/code/x', 'w')
except OSError as error:
    print(error.errno, flush=True)
os._exit(3)",
    );
    assert_eq!(printed, format!("{}\nTrue True\n30\n", 3 << 20));
    assert_eq!(ended.exit, Exit::Code(3));

    let cell = platform.make();
    platform.bind(&cell, None);
    platform.wait(platform.client.set_cpu(cell.id, 200)).unwrap();
    exec(
        &cell,
        &[
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            "
import time
start, spent = time.monotonic(), time.process_time()
while time.monotonic() - start < 1: pass
print(time.process_time() - spent)",
        ],
    );
    let spent: f64 = read_log(&cell).trim().parse().unwrap();
    assert!(spent < 0.5, "{spent} s of CPU in one second at a fifth of one");
    platform.wait(platform.client.end(cell.id)).unwrap();
    platform.stop();
}

pub(crate) fn running_out_of_memory_ends_the_cell_and_says_so() {
    let platform = Platform::start();
    let bind = Bind { memory_bytes: 48 << 20, ..small() };
    let (_, ended) = platform.python(&bind, "x = bytearray(256 << 20)");
    assert_eq!((ended.exit, ended.out_of_memory), (Exit::Signal(9), true));

    let cell = platform.make();
    platform.bind(&cell, None);
    exec(&cell, &["/usr/bin/python3", "-c", "x = b'x' * (32 << 20); print('here', flush=True); import time; time.sleep(99)"]);
    assert_eq!(read_line(&cell), "here");
    // The kernel adds up what its processors have counted now and then.
    let asked = Instant::now();
    let sample = loop {
        let sample = cell.usage.sample().unwrap();
        if sample.memory_bytes > 32 << 20 || asked.elapsed() > Duration::from_secs(20) {
            break sample;
        }
        std::thread::yield_now();
    };
    assert!(sample.memory_bytes > 32 << 20 && sample.memory_bytes < 128 << 20, "{sample:?}");
    assert!(sample.cpu_us > 1000, "{sample:?}");
    platform.end(&cell);
    platform.stop();
}

pub(crate) fn a_cell_is_bound_once_and_only_to_what_is_there() {
    let platform = Platform::start();
    let missing = Digest([7; 32]);
    let cell = platform.make();
    let error = platform.wait(platform.client.bind(cell.id, &Bind { code: Some(missing), ..small() })).unwrap_err();
    assert!(matches!(error, BindError::NoSuchTree(digest) if digest == missing), "{error}");
    let error = platform.wait(platform.client.bind(cell.id, &small())).unwrap_err();
    assert!(matches!(error, BindError::AlreadyBound(_)), "{error}");
    let nobody = CellId(1 << 40);
    let error = platform.wait(platform.client.bind(nobody, &small())).unwrap_err();
    assert!(matches!(error, BindError::NoSuchCell(cell) if cell == nobody), "{error}");
    let error = platform.wait(platform.client.end(nobody)).unwrap_err();
    assert!(matches!(error, EndError::NoSuchCell(_)), "{error}");
    platform.end(&cell);
    assert!(matches!(platform.wait(platform.client.freeze(cell.id, true)), Err(BindError::NoSuchCell(_))));
    platform.stop();
}

pub(crate) fn the_end_of_a_cell_leaves_nothing() {
    let platform = Platform::start();
    let code = platform.tree("hello.py", "import time; print('up', flush=True); time.sleep(1000)");
    // The first cell starts the spawner, which stays.
    let first = platform.make();
    platform.end(&first);
    let before = platform.traces();
    let cells: Vec<_> = (0..5).map(|_| platform.make()).collect();
    for cell in &cells {
        platform.bind(cell, Some(code));
        exec(cell, &["python3", "/code/hello.py"]);
    }
    for cell in &cells {
        assert_eq!(read_line(cell), "up");
    }
    assert_ne!(platform.traces(), before);
    for cell in &cells {
        let Ended { exit, .. } = platform.end(cell);
        assert_eq!(exit, Exit::Signal(9));
    }
    assert_eq!(platform.traces(), before);
    let identity = platform.identity.clone();
    platform.stop();
    assert_eq!(Traces::of(&identity), Traces::default());
}

pub(crate) fn a_frozen_cell_ends_too() {
    let platform = Platform::start();
    let cell = platform.make();
    platform.bind(&cell, None);
    exec(
        &cell,
        &[
            "/usr/bin/python3",
            "-c",
            "
print('up', flush=True)
while True: pass",
        ],
    );
    assert_eq!(read_line(&cell), "up");
    platform.wait(platform.client.freeze(cell.id, true)).unwrap();
    let still = cell.usage.sample().unwrap().cpu_us;
    std::thread::sleep(std::time::Duration::from_millis(100));
    let spent = cell.usage.sample().unwrap().cpu_us - still;
    assert!(spent < 20_000, "{spent} us in a tenth of a second");
    platform.wait(platform.client.freeze(cell.id, false)).unwrap();
    eventually("it runs again", || cell.usage.sample().unwrap().cpu_us > still + 20_000);
    platform.wait(platform.client.freeze(cell.id, true)).unwrap();
    assert_eq!(platform.end(&cell).exit, Exit::Signal(9));
    platform.stop();
}

/// Whichever of the two gets there first.
pub(crate) fn a_cell_that_is_frozen_while_it_is_ended_ends() {
    let platform = Platform::start();
    for _ in 0..40 {
        let cell = platform.make();
        platform.bind(&cell, None);
        // Many processes take a while to die.
        let crowd = "import os, time
for _ in range(30):
    if os.fork() == 0: time.sleep(1000)
print('up', flush=True)
time.sleep(1000)";
        exec(&cell, &["/usr/bin/python3", "-c", crowd]);
        assert_eq!(read_line(&cell), "up");
        let (_, ended) =
            platform.wait(async { tokio::join!(platform.client.freeze(cell.id, true), platform.client.end(cell.id)) });
        assert_eq!(ended.unwrap().exit, Exit::Signal(9));
    }
    platform.stop();
}

pub(crate) fn a_socket_reaches_into_the_cell_and_nowhere_else() {
    let platform = Platform::start();
    let cells = [platform.make(), platform.make()];
    for cell in &cells {
        platform.bind(cell, None);
        exec(
            cell,
            &[
                "/usr/bin/python3",
                "-c",
                "
import socket
s = socket.create_server(('127.0.0.1', 9000))
print('listening', flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b'inside ' + c.recv(100))
    c.close()",
            ],
        );
        assert_eq!(read_line(cell), "listening");
    }
    for cell in &cells {
        let socket = platform.wait(platform.client.socket(cell.id)).unwrap();
        let mut stream = connect(socket, 9000).unwrap();
        stream.write_all(b"out").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "inside out");
    }
    // A port of the host is not there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = platform.wait(platform.client.socket(cells[0].id)).unwrap();
    assert!(connect(socket, listener.local_addr().unwrap().port()).is_err());
    platform.stop();
}

fn connect(socket: OwnedFd, port: u16) -> std::io::Result<TcpStream> {
    rustix::io::ioctl_fionbio(&socket, false)?;
    rustix::net::connect(socket.as_fd(), &std::net::SocketAddr::from(([127, 0, 0, 1], port)))?;
    Ok(socket.into())
}

pub(crate) fn fifty_cells_at_once() {
    let platform = Platform::start();
    let code = platform.tree("hello.py", "print('hello')\n");
    platform.wait(async {
        let mut lives = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let client = platform.client.clone();
            lives.spawn(async move {
                let cell = client.make(CellKind::Launcher, Net::Loopback).await.unwrap();
                client.bind(cell.id, &Bind { code: Some(code), ..small() }).await.unwrap();
                exec(&cell, &["python3", "-I", "-S", "/code/hello.py"]);
                let mut ended = cell.ended.clone();
                let end = ended.wait_for(Option::is_some).await.unwrap().clone().unwrap();
                assert_eq!(end.exit, Exit::Code(0));
                assert_eq!(read_log(&cell), "hello\n");
                cell.id
            });
        }
        let ids: BTreeSet<CellId> = lives.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 50);
    });
    platform.stop();
}

pub(crate) fn no_two_live_cells_share_a_uid() {
    let platform = Platform::start();
    let cells: Vec<_> = (0..8).map(|_| platform.make()).collect();
    for cell in &cells {
        platform.bind(cell, None);
        // The map shows the host's side to the one who is inside, too.
        exec(
            cell,
            &[
                "/usr/bin/python3",
                "-c",
                "
import os
print(os.getuid(), open('/proc/self/uid_map').read().split()[0], os.listdir('/proc/self/fd'), flush=True)
import time; time.sleep(100)",
            ],
        );
        assert!(read_line(cell).starts_with("1000 1000 ['0', '1', '2',"));
    }
    assert_eq!(platform.traces().uids.len(), 8);
    platform.stop();
}

pub(crate) fn garbage_ends_the_session_and_its_cells() {
    for garbage in [&b"what?"[..], &[9; 100], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9], &[0; 4096]] {
        let (harness, socket, dir) = start_raw(|_| {});
        let identity = Identity::read(dir.path());
        // One proper request first: a cell that has to go.
        let make = [1, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1];
        rustix::net::send(&socket, &make, rustix::net::SendFlags::empty()).unwrap();
        eventually("there is a cell", || !Traces::of(&identity).uids.is_empty());
        rustix::net::send(&socket, garbage, rustix::net::SendFlags::empty()).unwrap();
        eventually("the session is over", || {
            let mut buffer = [0u8; 1024];
            let read = rustix::io::read(&socket, &mut buffer);
            matches!(read, Ok(0) | Err(rustix::io::Errno::CONNRESET))
        });
        harness.stop().unwrap();
        assert_eq!(Traces::of(&identity), Traces::default());
    }
}

pub(crate) fn no_more_cells_than_granted() {
    let platform = Platform::start_with(|config| config.cells_max = 2);
    let cells = [platform.make(), platform.make()];
    let error = platform.wait(platform.client.make(CellKind::Launcher, Net::Loopback)).unwrap_err();
    assert!(matches!(error, MakeError::Full), "{error}");
    platform.end(&cells[0]);
    let third = platform.make();
    // A channel that nobody holds any more ends its cell.
    let ended = third.ended.clone();
    drop(third);
    eventually("the abandoned cell is gone", || ended.borrow().is_some());
    platform.stop();
}

pub(crate) fn python_cells_are_ready_and_differ() {
    let platform = Platform::start();
    let cells: Vec<_> = (0..3)
        .map(|_| platform.wait(platform.client.make(CellKind::Python(InterpreterId(0)), Net::Loopback)).expect("a python cell"))
        .collect();
    for cell in &cells {
        let mut header = [0; 32];
        channel(cell).read_exact(&mut header).unwrap();
        assert_eq!(header[0], 16, "Ready");
    }
    for cell in &cells {
        platform.bind(cell, None);
        assert_eq!(platform.end(cell).exit, Exit::Signal(9));
    }
    platform.stop();
}
