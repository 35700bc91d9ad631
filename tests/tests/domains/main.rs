//! Custom domains on the real platform, for their effect: which function answers, over what, and for whom.

mod bad_input;
mod callers;
mod certificates;
mod routes;
mod support;
