//! One operation, and the layers it works on.

use plyfs::overlay::RedirectPolicy;

use crate::ground::Ground;
use crate::union::{Answer, Union};

/// Does something and tells what the caller got for it, as far as it is the same in every run.
pub type Act = fn(&Union) -> Answer<String>;

/// One operation, and the layers it works on.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub lowers: [&'static str; 2],
    pub upper: &'static str,
    pub redirect: RedirectPolicy,
    pub grounds: &'static [Ground],
    /// What an earlier mount did.
    pub earlier: Option<Act>,
    /// What this mount did before, with the nodes of the operation looked up.
    pub before: Option<Act>,
    /// The paths of the nodes that the operation is given.
    pub nodes: &'static [&'static str],
    pub act: Act,
    /// Whether set-id bits are taken away before anything else, and for good, as on every filesystem.
    pub strips: bool,
}

/// A lower layer with one thing of each kind.
pub const LOWER: &str = r#"
f d/file text="lower content" mode=0640 own=3:4 mtime=1000000000.5 user.note=kept
f d/other text=other mode=4711 own=3:4
l d/link to=file
p d/fifo mode=0620
d d/empty
f a/b/c/file text=deep mode=0600
f tree/one text=1
f tree/sub/two text=2
f links/first text="two names"
h links/second to=links/first
"#;

/// A layer below it.
pub const BOTTOM: &str = r#"
f d/file text="must never be seen"
f d/below text=bottom
f tree/sub/three text=3
f gone/old text="deleted long ago"
"#;

pub const NOTHING: Scenario = Scenario {
    lowers: [LOWER, BOTTOM],
    upper: "",
    redirect: RedirectPolicy::Copy,
    grounds: &Ground::ALL,
    earlier: None,
    before: None,
    nodes: &[],
    act: |_| Ok(String::new()),
    strips: false,
};
