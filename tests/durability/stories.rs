//! The stories, each with a power cut after every step.

use std::fs::{self, File};

use plyfs::layer::stat_override::StatOverride;
use plyfs::overlay::{Config, RedirectPolicy, UpperDirs};

use crate::mounted::Mounted;
use crate::needs_root;
use crate::power::{builder, cut};
use crate::promise::History;
use crate::replay;
use crate::story::{Tree, steps};
use crate::support::privilege::skip;
use crate::support::{Builder, Scratch, tree};
use crate::volume::Kind;

/// What a story begins with and what happens.
struct Story {
    upper: &'static str,
    options: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    text: &'static str,
}

const PLAIN: Story = Story { upper: "", options: &[], environment: &[], text: "" };

impl Story {
    fn tell(&self, kind: Kind) {
        if !kind.is_known() {
            return skip(module_path!(), &format!("this kernel has no {kind:?}"));
        }
        let steps = steps(self.text);
        let mut broken = String::new();
        for last in 1..=steps.len() {
            for how in steps[last - 1].cuts() {
                let mut union = self.builder(kind).mount();
                let tree = Mounted(union.path(""));
                let mut history = History::begin(&tree);
                for step in &steps[..last] {
                    history.take(step, &tree);
                }
                cut(&mut union, kind, *how);
                let promises = history.broken_promises(&tree.moment());
                if !promises.is_empty() {
                    let step = &steps[last - 1];
                    broken +=
                        &format!("power cut ({how:?}) after step {last}, {step:?}:\n{promises}\n");
                }
                union.kill();
            }
        }
        assert!(broken.is_empty(), "on {kind:?}:\n{broken}");
    }

    /// Lets every crash happen without FUSE and without a power cut.
    fn replay(&self, kind: Kind) {
        let scratch = Scratch::new();
        kind.mount_empty(&scratch.dir("volume"));
        let [upper, work, lower, bottom] =
            ["volume/upper", "volume/work", "lower", "bottom"].map(|name| scratch.dir(name));
        for (dir, text) in [(&lower, LOWER), (&bottom, BOTTOM), (&upper, self.upper)] {
            tree::make(dir, text);
        }
        let mut config = Config { lower: vec![lower, bottom], ..Config::default() };
        config.upper = Some(UpperDirs { upper, work });
        for option in self.options {
            match *option {
                "redirect_dir=on" => config.redirect = RedirectPolicy::Redirect,
                "metacopy=on" => config.metacopy = true,
                "xattr_permissions=2" => config.store_attributes = Some(StatOverride::Containers),
                // Nothing that the overlay knows of.
                "writeback=1" => {}
                other => panic!("{other}?"),
            }
        }
        config.force_dot_whiteouts = !self.environment.is_empty();
        let states = replay::crash_everywhere(scratch.path(), &config, &steps(self.text));
        println!("{states} states of the disk");
    }

    fn builder(&self, kind: Kind) -> Builder {
        let builder = builder(kind);
        let lower = builder.path().join("volume/lower");
        fs::create_dir(&lower).unwrap();
        tree::make(&lower, LOWER);
        let mut builder = builder.lower_at(lower).lower(BOTTOM).upper(self.upper);
        rustix::fs::syncfs(File::open(builder.path().join("volume")).unwrap()).unwrap();
        for option in self.options {
            builder = builder.option(*option);
        }
        for (name, value) in self.environment {
            builder = builder.environment(name, value);
        }
        builder
    }
}

/// Declares each story as a test for each filesystem.
macro_rules! stories {
    ($($name:ident: $story:expr;)*) => {
        $(
            mod $name {
                use super::*;

                const STORY: Story = $story;

                #[test]
                fn on_ext4() {
                    needs_root!();
                    STORY.tell(Kind::Ext4);
                }

                /// Where what is to be found behind its data has to be synced.
                #[test]
                fn replayed() {
                    needs_root!();
                    STORY.replay(Kind::Tmpfs);
                }

                /// Where the log sees to that.
                #[test]
                fn replayed_on_ext4() {
                    needs_root!();
                    STORY.replay(Kind::Ext4);
                }

                #[test]
                fn on_xfs() {
                    needs_root!();
                    STORY.tell(Kind::Xfs);
                }
            }
        )*
    };
}

const LOWER: &str = r#"
f a/b/c/file text="lower content" mode=4711 own=3:4 mtime=1000000000.5 user.note=kept
f d/file text="lower" mode=0666 mtime=1000000001
f d/other text="other" mode=0666 mtime=1000000002
l d/link to=file mtime=1000000003
p d/fifo mode=0620 mtime=1000000004
d open mode=0777
f tree/one text=1 mtime=1000000005
f tree/sub/two text=2 mtime=1000000006
f links/first text="two names" mtime=1000000007
h links/second to=links/first
f old/content text="must not come back"
"#;

const BOTTOM: &str = r#"
f d/file text="must never be seen"
f d/below text="bottom" mtime=1000000008
f tree/sub/three text=3 mtime=1000000009
f old/below/deep text="must not come back either"
"#;

stories! {
    data_of_a_copied_up_file: Story {
        text: "
            overwrite a/b/c/file LOWER
            fdatasync a/b/c/file
            append a/b/c/file more
            fsync a/b/c/file
            overwrite d/file XX
            fdatasync d/file
        ",
        ..PLAIN
    };
    attributes_of_a_copied_up_file: Story {
        text: "
            chmod a/b/c/file 600
            fsync a/b/c/file
            chown d/file 77
            xattr d/file value
            touch d/file 1234567890.25
            fsync d/file
            chmod d/fifo 666
            fsync d
            chmod tree 700
            fsync tree
        ",
        ..PLAIN
    };
    cut_and_rewritten_file: Story {
        text: "
            write d/file again
            fdatasync d/file
            truncate d/other 2
            fdatasync d/other
            truncate a/b/c/file 0
            append a/b/c/file anew
            fsync a/b/c/file
        ",
        ..PLAIN
    };
    new_files_and_directories: Story {
        text: "
            write a/b/new one
            fsync a/b/new
            fsync a/b
            mkdir a/b/c/x
            mkdir a/b/c/x/y
            write a/b/c/x/y/new two
            fsync a/b/c/x/y/new
            symlink target a/b/c/x/link
            fifo a/b/c/x/fifo
            fsync a/b/c/x
        ",
        ..PLAIN
    };
    new_files_of_a_user: Story {
        text: "
            user write open/empty x
            user truncate open/empty 0
            user fdatasync open/empty
            user write open/new text
            user fdatasync open/new
            user mkdir open/dir
            user write open/dir/new text
            user fsync open/dir/new
            user append-sync open/new 1
            user append-dsync open/new 2
        ",
        ..PLAIN
    };
    deleted_things_stay_deleted: Story {
        text: "
            unlink d/file
            unlink d/below
            fsync d
            write d/other changed
            unlink d/other
            fsync d
            unlink a/b/c/file
            rmdir a/b/c
            fsync a/b
            rmdir a/b
            fsync a
        ",
        ..PLAIN
    };
    deleted_and_made_anew: Story {
        text: "
            unlink d/file
            write d/file new
            fsync d/file
            unlink old/below/deep
            rmdir old/below
            unlink old/content
            rmdir old
            mkdir old
            fsync old
            fsync .
            write old/content new
            fsync old/content
        ",
        ..PLAIN
    };
    renamed_files: Story {
        text: "
            rename d/file d/moved
            fsync d
            rename d/other a/b/other
            fsync a/b
            fsync d
            write a/b/other changed
            fsync a/b/other
            rename a/b/other d/file
            fsync d
            exchange d/file d/moved
            fsync d
        ",
        ..PLAIN
    };
    file_replaced_by_a_synced_one: Story {
        text: "
            write d/file.new text
            fsync d/file.new
            rename d/file.new d/file
            write d/file.new more
            fdatasync d/file.new
            rename d/file.new d/file
            fsync d
            user write open/temporary text
            user fsync open/temporary
            rename open/temporary a/b/c/file
            fsync a/b/c
        ",
        ..PLAIN
    };
    directory_renamed_by_copy: Story {
        text: "
            rename tree moved
            fsync .
            write moved/sub/two changed
            fsync moved/sub/two
            rename a/b d/b
            fsync d
        ",
        ..PLAIN
    };
    directory_renamed_by_redirect: Story {
        options: &["redirect_dir=on"],
        text: "
            rename tree moved
            fsync .
            write moved/sub/two changed
            fsync moved/sub/two
            rename a/b d/b
            fsync d
            mkdir tree
            fsync .
        ",
        ..PLAIN
    };
    directory_renamed_onto_another: Story {
        text: "
            unlink old/below/deep
            rmdir old/below
            unlink old/content
            mkdir new
            write new/file text
            fsync new/file
            rename new old
            fsync .
            rename tree a/tree
            rename a/tree tree
            fsync .
        ",
        ..PLAIN
    };
    linked_files: Story {
        text: "
            append links/first more
            fsync links/first
            link links/second d/third
            fsync d
            overwrite d/third TWO
            fdatasync d/third
            unlink links/first
            fsync links
            rename links/second links/first
            fsync links
        ",
        ..PLAIN
    };
    linked_lower_files_deleted: Story {
        text: "
            unlink links/second
            fsync links
            link d/file links/file
            fsync links
            append d/file more
            fdatasync links/file
            unlink d/file
            fsync d
        ",
        ..PLAIN
    };
    metacopy_file_completed: Story {
        upper: "f d/file text=\"     \" mode=0600 mtime=1000000001 trusted.overlay.metacopy=\"\"",
        text: "
            overwrite d/file X
            fdatasync d/file
            append d/file more
            fsync d/file
        ",
        ..PLAIN
    };
    attributes_copied_up_without_data: Story {
        options: &["metacopy=on"],
        text: "
            chmod d/file 600
            fsync d/file
            chown a/b/c/file 77
            rename a/b/c/file d/moved
            fsync d
            overwrite d/moved LOWER
            fdatasync d/moved
            chmod links/first 600
            fsync links/first
            append links/second more
            fdatasync links/second
        ",
        ..PLAIN
    };
    written_through_a_mapping: Story {
        text: "
            overwrite-mapped d/file
            overwrite-mapped d/file
            append d/file more
            overwrite-mapped d/file
        ",
        ..PLAIN
    };
    collected_writes: Story {
        options: &["writeback=1"],
        text: "
            overwrite a/b/c/file LOWER
            fdatasync a/b/c/file
            write d/new text
            fsync d/new
            append-sync d/file more
        ",
        ..PLAIN
    };
    everything_synced: Story {
        text: "
            write d/file changed
            sync
            rename tree moved
            unlink d/other
            sync
        ",
        ..PLAIN
    };
    // (A rename is not one step then, and shows both names after a crash in between.)
    whiteouts_as_files: Story {
        environment: &[("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1")],
        text: "
            unlink d/file
            fsync d
            write d/file new
            fsync d/file
            fsync d
            unlink old/below/deep
            rmdir old/below
            unlink old/content
            rmdir old
            fsync .
            mkdir old
            fsync .
        ",
        ..PLAIN
    };
    attributes_stored_in_attributes: Story {
        options: &["xattr_permissions=2"],
        text: "
            overwrite d/file X
            fdatasync d/file
            chmod d/other 600
            fsync d/other
            write d/new text
            fsync d/new
            fifo d/pipe
            chmod d/fifo 600
            fsync d
        ",
        ..PLAIN
    };
}
