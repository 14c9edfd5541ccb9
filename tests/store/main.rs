//! The layer store, from outside: what archives become, what is refused, images in and out, crashes and damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archives;
mod crash;
mod crowd;
mod damage;
mod hostile;
mod images;
mod kills;
mod memory;
mod model;
mod peers;
mod program;
mod random;
mod registry;
mod room;
mod server;
mod strangers;
mod support;
mod watch;
