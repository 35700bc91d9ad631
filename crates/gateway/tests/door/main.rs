//! The door from outside: a real listener, raw bytes in, raw bytes out, and a function that is only a closure.

mod connections;
mod smuggling;
mod support;
mod urls;
