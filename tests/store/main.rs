//! The layer store, from outside: what archives become, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archives;

mod model;
mod support;
