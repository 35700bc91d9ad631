//! What the operator can set about the door.

use std::time::Duration;

/// Limits of connections and messages. The defaults serve one machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most connections at a time; one more is answered 503 and closed. Default 4096: what two descriptors per call
    /// leave room for under a soft limit of 10,000.
    pub connections_max: usize,
    /// How long a started head may take to be complete. Default 10 s.
    pub head_patience: Duration,
    /// How long a connection may stay without a request. Default 75 s, longer than the pools of common clients.
    pub idle_max: Duration,
    /// How long a started body may send nothing while it is waited for. Default 30 s.
    pub body_patience: Duration,
    /// How long a client may take nothing of what is being sent to it. Default 60 s.
    pub write_patience: Duration,
    /// How long calls in flight may run on after the door was closed. Default 30 s.
    pub grace: Duration,
    /// Largest head, in bytes. Default 32 KiB; function URLs have a smaller limit of their own.
    pub head_bytes_max: usize,
    /// Most header lines. Default 100.
    pub headers_max: usize,
    /// Memory for all bodies that are held whole, in bytes, each counted with the event that is made of it. Default 1 GiB.
    pub body_bytes_in_flight_max: usize,
    /// Longest request target, in bytes. Default 8 KiB; function URLs have a smaller limit of their own.
    pub target_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            head_patience: Duration::from_secs(10),
            idle_max: Duration::from_secs(75),
            body_patience: Duration::from_secs(30),
            write_patience: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            head_bytes_max: 32 << 10,
            headers_max: 100,
            body_bytes_in_flight_max: 1 << 30,
            target_bytes_max: 8 << 10,
        }
    }
}
