//! Every change that takes more than one step, and the fault points that it comes by.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, RenameFlags};

use super::Scenario;
use crate::support::posix::{chmod, mknod, rename_with, set_xattr};
use crate::{needs_root, not_with};

/// Declares each scenario as two tests of their own, and the table of all of them.
macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        $(
            #[test]
            fn $name() {
                needs_root!();
                const SCENARIO: Scenario = $scenario;
                SCENARIO.die_everywhere();
            }
        )*

        mod succeeded {
            use super::*;
            $(
                #[test]
                fn $name() {
                    needs_root!();
                    not_with!("timeout", "io=passthrough", "ino32_t");
                    const SCENARIO: Scenario = $scenario;
                    SCENARIO.is_carried_out_by_the_next();
                }
            )*
        }

        pub(super) const SCENARIOS: &[Scenario] = &[$($scenario),*];
    };
}

const NOTHING: Scenario = Scenario {
    lowers: [LOWER, BOTTOM],
    upper: "",
    options: &[],
    earlier: None,
    change: |_| Ok(()),
    points: &[],
};

/// The way of a lower file, in a lower directory, to the upper layer.
const COPY_UP: &[&str] =
    &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published"];

const LOWER: &str = r#"
f a/b/c/file text="lower content" mode=4711 own=3:4 mtime=1000000000.5 user.note=kept
f d/file text="lower" mode=0640 mtime=1000000001
f d/other text="other" mtime=1000000002
l d/link to=file mtime=1000000003
p d/fifo mode=0620 mtime=1000000004
f tree/one text=1 mtime=1000000005
f tree/sub/two text=2 mtime=1000000006
f links/first text="two names" mtime=1000000007
h links/second to=links/first
"#;

/// An upper layer as the kernel writes it for a change of attributes with `metacopy=on`: as long as the
/// lower file, and without its data.
const METACOPY: &str = r#"
f d/file text="     " mode=0600 mtime=1000000001 trusted.overlay.metacopy=""
"#;

const BOTTOM: &str = r#"
f d/file text="must never be seen"
f d/below text="bottom" mtime=1000000008
f tree/sub/three text=3 mtime=1000000009
f gone/old text="deleted long ago"
"#;

scenarios! {
    write_to_a_lower_file: Scenario {
        change: |root| write(&root.join("d/file"), b"changed"),
        points: COPY_UP,
        ..NOTHING
    };
    append_deep_in_lower_directories: Scenario {
        change: |root| append(&root.join("a/b/c/file")),
        points: COPY_UP,
        ..NOTHING
    };
    change_the_mode_of_a_lower_file: Scenario {
        change: |root| Ok(chmod(root.join("d/file"), 0o600)?),
        points: COPY_UP,
        ..NOTHING
    };
    change_the_mode_with_metacopy: Scenario {
        options: &["metacopy=on"],
        change: |root| Ok(chmod(root.join("d/file"), 0o600)?),
        points: COPY_UP,
        ..NOTHING
    };
    change_the_mode_of_a_lower_directory: Scenario {
        change: |root| Ok(chmod(root.join("tree/sub"), 0o700)?),
        points: &["copy-up.staged", "copy-up.directory-published"],
        ..NOTHING
    };
    set_an_attribute_of_a_lower_file: Scenario {
        change: |root| Ok(set_xattr(root.join("d/file"), "user.new", b"1")?),
        points: COPY_UP,
        ..NOTHING
    };
    truncate_a_lower_file: Scenario {
        change: |root| fs::File::options().write(true).open(root.join("d/file"))?.set_len(2),
        points: COPY_UP,
        ..NOTHING
    };
    write_to_a_name_of_a_hard_link: Scenario {
        change: |root| append(&root.join("links/second")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.indexed", "copy-up.published", "copy-up.directory-published"],
        ..NOTHING
    };
    create_a_file: Scenario {
        change: |root| fs::write(root.join("d/new"), ""),
        points: &["copy-up.staged", "copy-up.directory-published"],
        ..NOTHING
    };
    create_a_file_where_one_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| fs::write(root.join("d/file"), ""),
        points: &["create.staged", "create.published"],
        ..NOTHING
    };
    make_a_fifo_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| Ok(mknod(root.join("d/file"), FileType::Fifo, (0, 0))?),
        points: &["create.staged", "create.published"],
        ..NOTHING
    };
    make_a_symlink_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| symlink("elsewhere", root.join("d/file")),
        points: &["create.staged", "create.published"],
        ..NOTHING
    };
    make_a_directory: Scenario {
        change: |root| fs::create_dir(root.join("d/new")),
        points: &["copy-up.staged", "copy-up.directory-published"],
        ..NOTHING
    };
    make_a_directory_where_one_was_deleted: Scenario {
        upper: "w gone",
        change: |root| fs::create_dir(root.join("gone")),
        points: &["mkdir.staged", "mkdir.exchanged", "mkdir.published"],
        ..NOTHING
    };
    link_a_lower_file: Scenario {
        change: |root| fs::hard_link(root.join("d/file"), root.join("d/linked")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "link.published"],
        ..NOTHING
    };
    link_where_a_file_was_deleted: Scenario {
        upper: "w d/file",
        change: |root| fs::hard_link(root.join("d/other"), root.join("d/file")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "link.staged", "link.published"],
        ..NOTHING
    };
    delete_a_lower_file: Scenario {
        change: |root| fs::remove_file(root.join("d/file")),
        points: &["copy-up.staged", "copy-up.directory-published", "unlink.published"],
        ..NOTHING
    };
    delete_a_changed_file: Scenario {
        upper: "f d/file text=upper mtime=1000000020",
        change: |root| fs::remove_file(root.join("d/file")),
        points: &["unlink.whiteout-staged", "unlink.published"],
        ..NOTHING
    };
    delete_a_new_file: Scenario {
        upper: "f d/new text=upper mtime=1000000020",
        change: |root| fs::remove_file(root.join("d/new")),
        points: &["unlink.published"],
        ..NOTHING
    };
    delete_one_name_of_a_hard_link: Scenario {
        change: |root| fs::remove_file(root.join("links/first")),
        points: &["copy-up.staged", "copy-up.directory-published", "unlink.published"],
        ..NOTHING
    };
    delete_an_emptied_lower_directory: Scenario {
        upper: "w gone/old",
        change: |root| fs::remove_dir(root.join("gone")),
        points: &["rmdir.whiteout-staged", "rmdir.moved-away"],
        ..NOTHING
    };
    delete_a_new_directory: Scenario {
        upper: "d d/new",
        change: |root| fs::remove_dir(root.join("d/new")),
        points: &["rmdir.removed"],
        ..NOTHING
    };
    delete_a_new_directory_that_holds_whiteouts: Scenario {
        upper: "w d/new/old",
        change: |root| fs::remove_dir(root.join("d/new")),
        points: &["rmdir.moved-away"],
        ..NOTHING
    };
    delete_a_directory_made_anew: Scenario {
        upper: "o gone",
        change: |root| fs::remove_dir(root.join("gone")),
        points: &["rmdir.whiteout-staged", "rmdir.moved-away"],
        ..NOTHING
    };
    rename_a_lower_file: Scenario {
        change: |root| fs::rename(root.join("d/file"), root.join("d/renamed")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_file_to_another_directory: Scenario {
        change: |root| fs::rename(root.join("a/b/c/file"), root.join("tree/moved")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_over_a_lower_file: Scenario {
        upper: "f d/new text=new mtime=1000000020",
        change: |root| fs::rename(root.join("d/new"), root.join("d/file")),
        points: &["rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_file_over_a_lower_file: Scenario {
        change: |root| fs::rename(root.join("d/file"), root.join("d/other")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_to_a_deleted_name: Scenario {
        upper: "w d/file\nf d/new text=new mtime=1000000020",
        change: |root| fs::rename(root.join("d/new"), root.join("d/file")),
        points: &["rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_fifo: Scenario {
        change: |root| fs::rename(root.join("d/fifo"), root.join("d/renamed")),
        points: &["copy-up.staged", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_directory: Scenario {
        change: |root| fs::rename(root.join("tree"), root.join("renamed")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_lower_directory_with_redirect: Scenario {
        options: &["redirect_dir=on"],
        change: |root| fs::rename(root.join("tree"), root.join("renamed")),
        points: &["copy-up.staged", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_new_directory: Scenario {
        upper: "f new/inside text=x mtime=1000000021",
        change: |root| fs::rename(root.join("new"), root.join("d/renamed")),
        points: &["copy-up.staged", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    rename_a_directory_to_a_deleted_name: Scenario {
        upper: "w gone\nf new/inside text=x mtime=1000000021",
        change: |root| fs::rename(root.join("new"), root.join("gone")),
        points: &["rename.prepared", "rename.opaque-set", "rename.published", "rename.exchanged"],
        ..NOTHING
    };
    rename_a_directory_over_an_emptied_one: Scenario {
        upper: "w gone/old\nf new/inside text=x mtime=1000000021",
        change: |root| fs::rename(root.join("new"), root.join("gone")),
        points: &["rename.prepared", "rename.target-cleared", "rename.opaque-set", "rename.published"],
        ..NOTHING
    };
    write_to_a_metacopy: Scenario {
        upper: METACOPY,
        change: |root| write(&root.join("d/file"), b"changed"),
        points: &["metacopy.data-copied"],
        ..NOTHING
    };
    truncate_a_metacopy: Scenario {
        upper: METACOPY,
        change: |root| fs::File::options().write(true).open(root.join("d/file"))?.set_len(2),
        points: &["metacopy.data-copied"],
        ..NOTHING
    };
    rename_a_redirected_directory: Scenario {
        options: &["redirect_dir=on"],
        earlier: Some(|root| fs::rename(root.join("tree"), root.join("renamed"))),
        change: |root| fs::rename(root.join("renamed"), root.join("d/again")),
        points: &["copy-up.staged", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    delete_the_changed_name_of_a_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::remove_file(root.join("links/second")),
        points: &["unlink.whiteout-staged", "unlink.published"],
        ..NOTHING
    };
    delete_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::remove_file(root.join("links/first")),
        points: &["unlink.published"],
        ..NOTHING
    };
    delete_the_last_name_of_a_changed_hard_link: Scenario {
        earlier: Some(|root| {
            change_a_hard_link(root)?;
            fs::remove_file(root.join("links/first"))
        }),
        change: |root| fs::remove_file(root.join("links/second")),
        points: &["unlink.whiteout-staged", "unlink.published"],
        ..NOTHING
    };
    rename_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::rename(root.join("links/first"), root.join("links/third")),
        points: &["rename.prepared", "rename.published"],
        ..NOTHING
    };
    link_the_other_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::hard_link(root.join("links/first"), root.join("links/third")),
        points: &["link.published"],
        ..NOTHING
    };
    rename_over_a_name_of_a_changed_hard_link: Scenario {
        earlier: Some(change_a_hard_link),
        change: |root| fs::rename(root.join("d/file"), root.join("links/first")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.published"],
        ..NOTHING
    };
    exchange_two_lower_files: Scenario {
        change: |root| exchange(&root.join("d/file"), &root.join("d/other")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.exchanged"],
        ..NOTHING
    };
    exchange_a_lower_file_and_a_directory: Scenario {
        change: |root| exchange(&root.join("d/file"), &root.join("tree")),
        points: &["copy-up.staged", "copy-up.settled", "copy-up.published", "copy-up.directory-published", "rename.prepared", "rename.opaque-set", "rename.exchanged"],
        ..NOTHING
    };
}

/// Overwrites the start of a file and waits until the union has it.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    file.write_all_at(text, 0)?;
    file.sync_all()
}

fn append(path: &Path) -> io::Result<()> {
    let mut file = fs::File::options().append(true).open(path)?;
    file.write_all(b" and more")?;
    file.sync_all()
}

fn change_a_hard_link(root: &Path) -> io::Result<()> {
    append(&root.join("links/second"))?;
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_030);
    fs::File::open(root.join("links/second"))?.set_modified(past)
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(rename_with(a, b, RenameFlags::EXCHANGE)?)
}
