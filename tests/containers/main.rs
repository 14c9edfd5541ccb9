//! Images that are mounted, and containers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../mounted/support/mod.rs"]
mod support;

#[path = "../store"]
#[allow(dead_code)]
mod store {
    pub mod program;
    pub mod support;
}

#[path = "../scenarios/volume.rs"]
#[allow(dead_code)]
mod volume;

mod death;
mod garbage;
mod layers;
mod names;
mod seal;
mod sharing;
mod stage;
mod story;
mod unpack;
mod walk;
