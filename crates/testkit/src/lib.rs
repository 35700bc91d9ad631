//! A whole platform as a child process, and the small blocking client that tests and benches drive it with.
//!
//! [`Platform::start`] runs the real binary with a data directory of its own on a port the kernel picks; dropping it
//! stops that process and waits until it is gone. [`Api`] signs requests like the vendor's SDKs do. The client is blocking and
//! hand-made on purpose: a test can send bytes no library would, and a bench can see the first byte arrive.

pub mod api;
pub mod http;
pub mod image;
pub mod platform;
pub mod streams;

pub use api::{Api, zip_of, zip_of_folder};
pub use http::{Connection, Response};
pub use platform::{Options, Platform, cache};
pub use streams::{asked, eventually, growth, read_until};
