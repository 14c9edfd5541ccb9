//! Programs of images in containers, from outside: as root, as an ordinary user with subordinate ids, and without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod end;
mod hostile;
mod program;
mod stage;
mod system;
mod terminal;
mod volumes;
