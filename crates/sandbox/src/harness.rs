//! A supervisor inside a test, whose server the test itself is.
//!
//! Everything is real: root, cgroups, namespaces, mounts. Only the server process is left out, and walls, if the test
//! asks for that.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::supervisor::{Config, RunError, Supervisor};

/// A running supervisor. Dropped, it stops and takes every cell with it.
#[derive(Debug)]
pub struct Harness {
    stop: Option<io::PipeWriter>,
    main: Option<JoinHandle<Result<ExitCode, RunError>>>,
}

impl Harness {
    /// Starts a supervisor on a thread of its own. Returns the socket a server would be given: for
    /// [`crate::Client::new`], or for sending it garbage. The config must start no server.
    pub fn start(config: Config) -> Result<(Self, OwnedFd), RunError> {
        let (started, answer) = mpsc::sync_channel(1);
        let pipe = |source| RunError::Io { what: "make a pipe", source };
        let (stopped, stop) = io::pipe().map_err(pipe)?;
        let main = thread::Builder::new().name("supervisor".into()).spawn(move || {
            let prepared = Supervisor::start(config).and_then(|mut supervisor| {
                let socket = supervisor
                    .take_server_place()
                    .map_err(pipe)?
                    .ok_or(RunError::Io { what: "take the server's place", source: io::ErrorKind::AlreadyExists.into() })?;
                Ok((supervisor, socket))
            });
            match prepared {
                Ok((supervisor, socket)) => {
                    // The starter waits for it.
                    drop(started.send(Ok(socket)));
                    supervisor.run(stopped.into())
                }
                Err(error) => {
                    drop(started.send(Err(error)));
                    Ok(ExitCode::FAILURE)
                }
            }
        });
        let main = main.map_err(|source| RunError::Io { what: "start a thread", source })?;
        let socket = answer
            .recv()
            .map_err(|_| RunError::Io { what: "start a supervisor", source: io::Error::other("its thread panicked") })??;
        Ok((Self { stop: Some(stop), main: Some(main) }, socket))
    }

    /// Stops it and waits until nothing is left.
    pub fn stop(mut self) -> Result<(), RunError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), RunError> {
        drop(self.stop.take());
        let Some(main) = self.main.take() else { return Ok(()) };
        match main.join() {
            Ok(outcome) => outcome.map(|_| ()),
            Err(_) => Err(RunError::Thread { thread: "supervisor", source: io::Error::other("it panicked") }),
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(error = &error as &dyn std::error::Error, "the supervisor did not stop well");
        }
    }
}
