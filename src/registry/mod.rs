//! Images from and to registries (OCI distribution specification 1.1, Docker Registry HTTP API V2).
//!
//! A registry is a stranger. Whatever it says is compared with a digest or bounded; credentials are for it alone, and
//! for the server of tokens that it names over a connection as safe as its own: never for where a redirect leads
//! (CVE-2020-15157), never over plain HTTP unless that was asked for (CVE-2019-10214). Addresses of layers that stand in
//! manifests (`urls`) are not used at all.

pub mod blob;
pub mod certificates;
pub mod challenge;
pub mod client;
pub mod credential_program;
pub mod credentials;
mod pace;
pub mod pull;
pub mod push;
pub mod target;
pub mod token;
pub mod upload;
pub mod url;

pub use client::{Access, Client};
pub use target::Target;
