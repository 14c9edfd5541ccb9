//! (under construction)

pub mod id_map;
pub mod options;
pub mod request;
