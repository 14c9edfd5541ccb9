//! How registries are reached.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::registry::Access;
use crate::registry::credentials::Credentials;

/// Options of commands that speak to registries.
#[derive(Args, Debug)]
pub struct RegistryArgs {
    /// Whether certificates are verified; if not, plain HTTP will do, too. For this machine plain HTTP always does
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    tls_verify: bool,

    /// The file of credentials, instead of $REGISTRY_AUTH_FILE or those that podman and docker use
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Who asks, instead of what files and programs of credentials say. Others of this machine can see it: an --authfile is
    /// better
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "authfile")]
    creds: Option<Credentials>,
}

impl RegistryArgs {
    /// What the options say.
    pub fn access(self) -> Access {
        Access { verify: self.tls_verify, file: self.authfile, credentials: self.creds }
    }
}
