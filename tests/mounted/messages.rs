//! How many messages the kernel sends to the program for what users do: every one costs more than all
//! the rest of an operation, so that a change that adds one is a loss of speed. Counts are free of noise.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use plyfs::fuse::statistics::{ATTRIBUTE, Report};

use crate::support::posix::{append, chmod, exists, get_xattr, names, set_xattr, text};
use crate::support::privilege::skip;
use crate::support::{Builder, Union};
use crate::{needs_root, not_with};

/// The messages so far.
fn sent(union: &Union) -> BTreeMap<String, u64> {
    let value = get_xattr(union.path(""), ATTRIBUTE).unwrap();
    let report: Report = serde_json::from_slice(&value).unwrap();
    report.messages.iter().map(|(name, latency)| (name.clone(), latency.count)).collect()
}

/// The messages that `action` causes, as `NAME count` in the order of names. Nobody waits for FORGET and
/// RELEASE, which come at any time: they are left out, and so is the question for the count itself.
fn messages(union: &Union, action: impl FnOnce()) -> String {
    let before = sent(union);
    action();
    let mut now = sent(union);
    *now.get_mut("GETXATTR").unwrap() -= 1;
    now.retain(|name, _| !["FORGET", "RELEASE"].contains(&name.as_str()));
    let new = now.iter().filter_map(|(name, count)| {
        let count = count - before.get(name).unwrap_or(&0);
        (count > 0).then(|| format!("{name} {count}"))
    });
    new.collect::<Vec<_>>().join(", ")
}

fn counts(messages: &str) -> BTreeMap<String, u64> {
    let parts = messages.split(", ").map(|part| part.split_once(' ').unwrap());
    parts.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

/// Mounts; the kernel knows then that it need not tell of opens.
fn mount(builder: Builder) -> Union {
    let union = builder.lower("f opened").mount();
    for opened in ["opened", ""] {
        drop(fs::File::open(union.path(opened)).unwrap());
    }
    union
}

/// Reads every directory and the attributes of everything.
fn walk(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_dir() {
            walk(&entry.path());
        }
    }
}

const TREE: &str = "f a/1 text=one\nf a/2\nf a/b/3\nf a/b/4\nl a/b/link to=3\nf c/5\nd c/empty";

#[test]
fn what_is_known_needs_no_message() {
    needs_root!();
    not_with!("io=plain", "io=passthrough", "timeout", "writeback=1", "cache");
    let union = mount(Union::new().lower(TREE).lower("f a/b/6\nf c/7"));
    let everything = || {
        walk(&union.path(""));
        assert_eq!(text(union.path("a/1")), "one");
        assert_eq!(names(union.path("a/b")), ["3", "4", "6", "link"]);
        assert!(!exists(union.path("a/b/absent")));
        assert_eq!(fs::read_link(union.path("a/b/link")).unwrap(), Path::new("3"));
    };
    everything();
    everything();
    assert_eq!(messages(&union, everything), "");
}

#[test]
fn a_walk_asks_once_for_each_directory_and_never_for_a_file() {
    needs_root!();
    not_with!("io=plain", "io=passthrough", "timeout");
    let union = mount(Union::new().lower(TREE).lower("f a/b/6\nf c/7"));
    let asked = counts(&messages(&union, || walk(&union.path(""))));
    // Five directories; the end of each is asked for too, now and then without attributes.
    assert_eq!(asked.values().sum::<u64>(), 10, "{asked:?}");
    assert!(asked.keys().all(|name| name.starts_with("READDIR")), "{asked:?}");
}

/// The C library reads as much of a directory at once as its preferred size of an I/O says; `find` does so, and then
/// asks for the attributes.
#[test]
fn a_wide_directory_is_one_message_with_all_attributes_and_one_for_its_end() {
    needs_root!();
    not_with!("io=plain", "io=passthrough", "timeout");
    let files: String = (0..1500).map(|n| format!("f wide/file-{n}\n")).collect();
    let union = mount(Union::new().lower(&files).lower("f wide/below"));
    let asked = counts(&messages(&union, || {
        let wide = union.path("wide");
        let find = Command::new("find").arg(wide).args(["-printf", "%s %p\n"]).output();
        let listed = find.unwrap().stdout;
        assert_eq!(listed.iter().filter(|byte| **byte == b'\n').count(), 1502);
    }));
    let lookups = asked.get("LOOKUP").copied().unwrap_or(0);
    // The directory itself; and where it is read in pieces, not each file.
    assert!(lookups <= 1 && asked.values().sum::<u64>() - lookups <= 3, "{asked:?}");
}

#[test]
fn a_small_file_is_made_with_four_messages_and_a_release() {
    needs_root!();
    not_with!("timeout", "io=passthrough");
    let union = mount(Union::new().upper("f d/old"));
    walk(&union.path(""));
    // The kernel wants to know once for each file whether the first write takes capabilities from it.
    let made = messages(&union, || fs::write(union.path("d/new"), "x").unwrap());
    assert_eq!(made, "CREATE 1, GETXATTR 1, LOOKUP 1, WRITE 1");
}

#[test]
fn a_lower_file_is_copied_up_inside_the_message_that_changes_it() {
    needs_root!();
    not_with!("io=plain", "io=passthrough", "timeout", "writeback=1");
    let union = mount(Union::new().lower("f d/a text=old\nf d/b\nf d/c text=old"));
    walk(&union.path(""));
    assert_eq!(messages(&union, || append(union.path("d/a"), "+")), "GETXATTR 1, WRITE 1");
    assert_eq!(messages(&union, || chmod(union.path("d/b"), 0o600).unwrap()), "SETATTR 1");
    let cut = messages(&union, || {
        fs::File::options().write(true).open(union.path("d/c")).unwrap().set_len(1).unwrap();
    });
    assert_eq!(cut, "GETXATTR 1, SETATTR 1");
    assert_eq!(text(union.path("d/a")), "old+");
}

#[test]
fn a_change_of_a_name_is_one_message_and_what_the_kernel_forgets() {
    needs_root!();
    not_with!("timeout", "writeback=1");
    let union = mount(Union::new().lower("f d/a\nf d/b\nd d/d\nf d/e/f"));
    walk(&union.path(""));
    let path = |name: &str| union.path("d").join(name);
    assert_eq!(messages(&union, || fs::remove_file(path("a")).unwrap()), "UNLINK 1");
    // The kernel takes all attributes of a directory for changed with what is in it, also its permissions.
    assert_eq!(messages(&union, || fs::remove_dir(path("d")).unwrap()), "GETATTR 1, RMDIR 1");
    // And it never trusts an absence that it remembers where a name is about to be made.
    let made = |message: &str| {
        let mut all = [format!("{message} 1"), "GETATTR 1".to_owned(), "LOOKUP 1".to_owned()];
        all.sort();
        all.join(", ")
    };
    assert_eq!(messages(&union, || fs::rename(path("b"), path("c")).unwrap()), made("RENAME"));
    assert_eq!(messages(&union, || fs::create_dir(path("new")).unwrap()), made("MKDIR"));
    assert_eq!(messages(&union, || fs::hard_link(path("c"), path("link")).unwrap()), made("LINK"));
}

#[test]
fn attributes_are_asked_for_each_time_and_access_lists_once() {
    needs_root!();
    not_with!("timeout");
    let union = mount(Union::new().lower("f d/a"));
    walk(&union.path(""));
    let ask = |name: &str| {
        let answer = rustix::fs::getxattr(union.path("d/a"), name, &mut [0u8; 64]);
        assert_eq!(answer, Err(rustix::io::Errno::NODATA), "{name}");
    };
    ask("user.absent");
    assert_eq!(messages(&union, || ask("user.absent")), "GETXATTR 1");
    ask("system.posix_acl_access");
    assert_eq!(messages(&union, || ask("system.posix_acl_access")), "");
}

/// ls(1) stops asking where it hears that there are none.
#[test]
fn labels_are_asked_for_once_where_there_are_none() {
    needs_root!();
    not_with!("timeout");
    if exists("/sys/fs/selinux/enforce") {
        return skip(
            "messages::labels_are_asked_for_once_where_there_are_none",
            "this kernel has SELinux",
        );
    }
    let files: String = (0..50).map(|n| format!("f d/{n}\n")).collect();
    let union = mount(Union::new().lower(&files));
    let list = || {
        let listed = Command::new("ls").arg("-l").arg(union.path("d")).output().unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 51);
    };
    list();
    // Two more are about ACLs of the directory.
    let asked = counts(&messages(&union, list))["GETXATTR"];
    assert!(asked <= 3, "{asked} GETXATTR for 50 files");
    set_xattr(union.path("d/7"), "security.selinux", b"label").unwrap();
    assert_eq!(get_xattr(union.path("d/7"), "security.selinux").unwrap(), b"label");
}

#[test]
fn a_file_is_read_in_pieces_of_128_kib_and_once() {
    needs_root!();
    not_with!("io=plain", "io=passthrough", "timeout", "writeback=1", "cache");
    let large = |dir: &Path| {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), vec![b'x'; 1 << 20]).unwrap();
    };
    let union = mount(Union::new().lower_with(large));
    walk(&union.path(""));
    let read = || assert_eq!(fs::read(union.path("d/f")).unwrap().len(), 1 << 20);
    let first = messages(&union, read);
    let pieces: u64 = first.strip_prefix("READ ").unwrap().parse().unwrap();
    assert!(pieces <= 10, "{pieces} READ for 8 pieces");
    // The kernel takes the time of last access for changed whenever it has asked for data.
    assert_eq!(messages(&union, read), "GETATTR 1");
    assert_eq!(messages(&union, read), "");
}

#[test]
fn every_read_is_a_message_where_nothing_is_cached() {
    needs_root!();
    not_with!("io=passthrough", "cache");
    for option in ["cache=never", "cache=none", "direct_io"] {
        let union = mount(Union::new().option(option).lower("f d/f text=data"));
        let read = || assert_eq!(text(union.path("d/f")), "data");
        read();
        for _ in 0..2 {
            let sent = counts(&messages(&union, read));
            assert!((1..=2).contains(&sent["READ"]) && sent["OPEN"] == 1, "{option}: {sent:?}");
        }
        // Maps work all the same, also for programs.
        let copy = union.path("true");
        fs::copy("/bin/true", &copy).unwrap();
        assert!(std::process::Command::new(&copy).status().unwrap().success());
    }
}

#[test]
fn what_was_read_stays_in_the_cache_over_opens_if_that_is_wanted_with_a_timeout() {
    needs_root!();
    not_with!("cache", "timeout", "io=passthrough");
    let reads = |option: &str| {
        let union = mount(Union::new().option("timeout=0").option(option).lower("f d/f text=data"));
        let read = || assert_eq!(text(union.path("d/f")), "data");
        read();
        counts(&messages(&union, read)).get("READ").copied().unwrap_or(0)
    };
    assert_eq!((reads("cache=always"), reads("kernel_cache")), (0, 0));
    assert!(reads("cache=auto") > 0);
}

/// Writes 1 MiB by 4 KiB and syncs.
fn write_small(union: &Union) -> BTreeMap<String, u64> {
    let mut file = fs::File::create(union.path("d/f")).unwrap();
    let written = messages(union, || {
        for _ in 0..256 {
            file.write_all(&[b'x'; 4096]).unwrap();
        }
        file.sync_all().unwrap();
    });
    counts(&written)
}

#[test]
fn small_writes_are_collected_with_writeback() {
    needs_root!();
    not_with!("io=passthrough");
    let union = mount(Union::new().option("writeback=1").upper("f d/old"));
    let sent = write_small(&union);
    assert!(sent["WRITE"] <= 2, "{sent:?}");
}

/// Why `writeback=1` is not the default.
#[test]
fn a_file_that_was_opened_is_asked_for_again_with_writeback_only() {
    not_with!("timeout", "io=passthrough", "io=passthrough");
    needs_root!();
    for (option, asked) in [("writeback=0", ""), ("writeback=1", "GETATTR 1")] {
        let union = mount(Union::new().option(option).lower("f d/a text=a"));
        walk(&union.path(""));
        let open = || {
            let file = fs::File::open(union.path("d/a")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 1);
        };
        open();
        assert_eq!(messages(&union, open), asked, "{option}");
    }
}

#[test]
fn a_write_without_writeback_is_one_message() {
    needs_root!();
    not_with!("timeout", "writeback=1", "io=passthrough");
    let union = mount(Union::new().upper("f d/old"));
    let sent = write_small(&union);
    assert_eq!(sent["WRITE"], 256);
    assert_eq!(sent.keys().collect::<Vec<_>>(), ["FSYNC", "GETXATTR", "WRITE"]);
    assert_eq!(sent["GETXATTR"], 1);
}

#[test]
fn with_passthrough_a_file_is_opened_by_a_message_and_neither_read_nor_written_by_one() {
    needs_root!();
    not_with!("timeout");
    let layers = Union::new()
        .lower_with(|dir| fs::write(dir.join("big"), vec![7; 4 << 20]).unwrap())
        .lower("f a text=lower")
        .upper("f d/old");
    let Some(union) = crate::passthrough::mount(layers) else { return };
    walk(&union.path(""));
    // The kernel learns that it need not tell of closing.
    drop(fs::File::open(union.path("d/old")).unwrap());
    let read = || drop(fs::read(union.path("big")).unwrap());
    assert_eq!(messages(&union, read), "OPEN 1");
    // The kernel takes the time of last access for changed whenever data has been read.
    assert_eq!(messages(&union, read), "GETATTR 1, OPEN 1");
    // Whether capabilities are to be taken away is asked once.
    assert_eq!(messages(&union, || append(union.path("a"), "+")), "GETXATTR 1, OPEN 1");
    let made = messages(&union, || fs::write(union.path("d/new"), "x").unwrap());
    assert_eq!(made, "CREATE 1, GETXATTR 1, LOOKUP 1");
    let once = ["FSYNC", "GETXATTR"].map(|name| (name.to_owned(), 1));
    assert_eq!(write_small(&union), once.into());
}

#[test]
fn the_statistics_of_a_mount_are_printed() {
    needs_root!();
    not_with!("io=passthrough");
    let union = Union::new().lower("f a text=data\nf b").mount();
    append(union.path("a"), "+");
    let program = crate::support::mount::program();
    let print = |words: &[&str]| {
        let output = std::process::Command::new(&program)
            .arg("stats")
            .args(words)
            .arg(union.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let report: Report = serde_json::from_str(&print(&["--json"])).unwrap();
    assert_eq!((report.union.copy_ups, report.union.copied_bytes), (1, 4));
    assert_eq!(report.messages["WRITE"].count, 1);
    let table = print(&[]);
    let row = table.lines().find(|line| line.starts_with("WRITE ")).unwrap();
    assert_eq!(row.split_whitespace().nth(1), Some("1"), "{table}");
    assert!(table.contains("copy-ups 1 (of attributes only 0), 4 bytes"), "{table}");
    assert_eq!(crate::support::posix::xattrs(union.path("")), [""; 0]);
    assert!(set_xattr(union.path(""), ATTRIBUTE, b"x").is_err());
    let elsewhere = get_xattr(union.path("b"), ATTRIBUTE);
    assert_eq!(elsewhere, Err(rustix::io::Errno::NODATA));
}
