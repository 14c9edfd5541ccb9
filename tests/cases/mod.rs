//! Random cases for tests: layers and operations in a form that can be generated, minimised and
//! printed as code, and a model of a POSIX tree that knows what each operation should do.
//!
//! `PLYFS_CASES` sets the number of cases of each test, `PLYFS_SEED` repeats a run. A failure prints
//! its minimised case as code, to be kept among the regressions of its test.

// Every test binary that includes this module uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod acl;
pub mod caller;
pub mod case;
pub mod generate;
pub mod initial;
pub mod layer;
pub mod materialise;
pub mod model;
pub mod op;
pub mod profile;
pub mod random;
mod shrink;
pub mod text;
