//! plyfs: a union filesystem in userspace.
//!
//! The layers of the code, each of which knows only those below it (see `docs/architecture.md`):
//! [`cli`] → [`mount`] → [`fuse`] → [`overlay`] → [`layer`] → [`sys`];
//! [`check`], [`convert`] and [`changes`] go beside [`fuse`], [`store`] beside [`overlay`], on [`archive`] and [`layer`];
//! [`registry`] is above [`store`], [`container`] above [`store`] and [`mount`].

pub mod archive;
pub mod changes;
pub mod check;
pub mod cli;
pub mod container;
pub mod convert;
pub mod fuse;
pub mod layer;
pub mod mount;
pub mod overlay;
pub mod registry;
pub mod run;
pub mod store;
pub mod sys;
