//! The whole story of images, told by a script that checks each of its claims.

use std::fs;
use std::process::Command;

use crate::isolated;
use crate::support::mount::program;
use crate::support::scratch::Scratch;

/// The script and what it sources: the ordinary user may not be able to read where they lie.
const SCRIPTS: [(&str, &str); 3] = [
    ("story-walk", include_str!("../../scripts/lib/story-walk")),
    ("machine.sh", include_str!("../../scripts/lib/machine.sh")),
    ("walk.sh", include_str!("../../scripts/lib/walk.sh")),
];

#[test]
fn an_ordinary_user_makes_mounts_changes_commits_shares_and_moves_images() {
    isolated!(User, {
        let scratch = Scratch::new();
        let place = scratch.path();
        for (name, script) in SCRIPTS {
            fs::write(place.join(name), script).unwrap();
        }
        let mut walk = Command::new("bash");
        walk.arg(place.join("story-walk")).arg(program()).arg("/bin/busybox");
        let output = walk.env("TMPDIR", place).output().unwrap();
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}{error}");
    });
}
