//! Container images as functions: what becomes of them, from whichever place they come, and what hostile ones achieve.

mod hostile;
mod local;
mod registry;
mod support;
