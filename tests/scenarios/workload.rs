//! One rich piece of work on a tree, the same for every union and for a plain directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{FileType, RenameFlags};

use crate::support::posix::{
    append, chmod, chown, long_name, mknod, open_rw, remove_xattr, rename_with, run as run_tool,
    set_xattr,
};

/// What those who do the work are able to do.
#[derive(Clone, Copy)]
pub struct Ability {
    /// Real root: may give files away, make devices, set trusted attributes.
    pub owners: bool,
    /// Free of the defects of the peers. fuse-overlayfs 1.10 makes files of FIFOs that it copies up, waits for ever on
    /// one that the kernel copied up, has no room for long names, and shows nothing of an opaque lower directory once
    /// that is copied up; 2.0 dies of times before 1970 and cannot exchange lower files.
    pub sound: bool,
}

/// The two lower layers, top first. Those who cannot change owners get everything as their own.
pub fn lowers(ability: Ability) -> [String; 2] {
    [TOP, BOTTOM].map(|text| {
        let lines = text.lines().filter(|line| ability.sound || !line.contains("mtime=-"));
        let lines = lines.map(|line| if ability.owners { line.into() } else { owned_by_one(line) });
        lines.collect::<Vec<String>>().join("\n")
    })
}

/// Without owners, and with an opaque directory marked as a user namespace can.
fn owned_by_one(line: &str) -> String {
    let words: Vec<_> = line.split(' ').filter(|word| !word.starts_with("own=")).collect();
    let line = words.join(" ");
    line.strip_prefix("o ").map(|rest| format!("d {rest} user.overlay.opaque=y")).unwrap_or(line)
}

const TOP: &str = r#"
f read/both text="top wins" mode=0640 own=1:2 mtime=1000000000.5 user.note=top
f read/top text=top mtime=-86400.25
l read/link to=../somewhere mtime=1000000001
f delete/both text=top
d delete/merged mode=0750
f delete/merged/top text=top
f delete/hidden-below text=top
w delete/whiteout-in-lower
o opaque/dir mode=0711
f opaque/dir/top text=top
f rename/over-this text=old
f rename/merged/top text=top
f rename/merged/deep/top text=top
f recreate/merged/top text=top
"#;

const BOTTOM: &str = r#"
f read/both text=bottom
f read/bottom text="bottom layer" own=7:8 mode=04755
f "read/name with blanks and \xff" text=odd
p read/fifo mode=0620
f modify/append text="line one\n" mode=0604 own=3:4 mtime=1111111111.25 user.kept=yes
f modify/middle text="0123456789012345678901234567890123456789"
f modify/truncate text="a long line that is cut"
f modify/empty text="emptied by O_TRUNC"
f modify/extend text=short
f modify/mode text=mode mode=0644 mtime=1222222222
f modify/owner text=owner mode=0755 own=5:6
f modify/times text=times
f modify/xattr-set text=x user.first=1
f modify/xattr-remove text=x user.first=1 user.second=2
f modify/acl text=acl mode=0640
f modify/mode-then-data text=abc mode=0600
d modify/dir-mode mode=0755
d modify/dir-xattr user.first=1
d modify/dir-acl
f delete/both text=bottom
f delete/bottom text=bottom
f delete/merged/bottom text=bottom
f delete/tree/a/b/c text=deep
f delete/tree/a/d text=deep
f delete/whiteout-in-lower text="hidden by the layer above"
f delete/hidden-below text=bottom
l delete/link to=both
f opaque/dir/hidden text=hidden
f opaque/renamed/inside text=inside
f rename/file text="renamed file" mode=0600 own=9:9
f rename/over-target text=target
f rename/source text=source
f rename/tree/a text=a
f rename/tree/sub/b text=b
f rename/tree/sub/deeper/c text=c
f rename/again/x text=x
f rename/nested/inner/y text=y
f rename/merged/bottom text=bottom
f rename/merged/deep/bottom text=bottom
f rename/out/of/this text=out
f rename/swap-a text=a
f rename/swap-b text=b
l rename/link to=file
p rename/fifo mode=0620
d rename/onto-empty
f rename/deleted-target/old text="must not come back"
f rename/replacement/new text=new
f recreate/dir/old text="must not come back"
f recreate/dir/sub/old text="must not come back"
f recreate/merged/bottom text="must not come back"
f recreate/file-as-dir text=file
f recreate/dir-as-file/old text=dir
f recreate/dir-as-link/old text=dir
f recreate/file text=old
f links/alone text="one name"
f links/first text="two names"
h links/second to=links/first
f links/third text="linked and changed"
h links/fourth to=links/third
f links/fifth text="linked and one deleted"
h links/sixth to=links/fifth
"#;

/// Does the work below `root`. What only real root may do is done only then.
pub fn run(root: &Path, ability: Ability) {
    let at = |path: &str| root.join(path);
    modify(&at("modify"), ability);
    delete(&at("delete"));
    rename(&at("rename"), &at("opaque"), ability);
    recreate(&at("recreate"));
    links(&at("links"));
    create(&at("create"), ability);
}

/// One more change to every file and directory there is: reads all data and copies all of it up.
pub fn change_everything(root: &Path) {
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::write(entry.path().join("+"), "").unwrap();
            change_everything(&entry.path());
        } else if kind.is_file() {
            append(entry.path(), "+");
        }
    }
}

fn modify(dir: &Path, ability: Ability) {
    let at = |name: &str| dir.join(name);
    append(at("append"), "line two\n");
    open_rw(at("middle")).write_all_at(b"MIDDLE", 17).unwrap();
    open_rw(at("truncate")).set_len(6).unwrap();
    fs::write(at("empty"), "").unwrap();
    open_rw(at("extend")).set_len(70_000).unwrap();
    chmod(at("mode"), 0o4711).unwrap();
    if ability.owners {
        chown(at("owner"), 50, 60).unwrap();
    }
    let past = UNIX_EPOCH + Duration::from_millis(1_333_333_333_250);
    File::open(at("times")).unwrap().set_modified(past).unwrap();
    set_xattr(at("xattr-set"), "user.second", b"two\0bytes").unwrap();
    remove_xattr(at("xattr-remove"), "user.first").unwrap();
    set_acl("u:0:rwx,g:0:r", &at("acl"));
    chmod(at("mode-then-data"), 0o640).unwrap();
    append(at("mode-then-data"), "def");
    chmod(at("dir-mode"), 0o1700).unwrap();
    set_xattr(at("dir-xattr"), "user.first", b"changed").unwrap();
    set_acl("d:u:0:rwx", &at("dir-acl"));
    fs::write(at("dir-acl/inherits"), "acl").unwrap();
    fs::create_dir(at("dir-acl/inherits-dir")).unwrap();
}

fn delete(dir: &Path) {
    let at = |name: &str| dir.join(name);
    for name in ["both", "bottom", "link", "hidden-below"] {
        fs::remove_file(at(name)).unwrap();
    }
    fs::remove_dir_all(at("merged")).unwrap();
    fs::remove_dir_all(at("tree/a")).unwrap();
    fs::write(at("short-lived"), "x").unwrap();
    fs::remove_file(at("short-lived")).unwrap();
    fs::write(at("whiteout-in-lower"), "new").unwrap();
    fs::remove_file(at("whiteout-in-lower")).unwrap();
}

fn rename(dir: &Path, opaque: &Path, ability: Ability) {
    let at = |name: &str| dir.join(name);
    move_to(&at("file"), &at("file-renamed"));
    move_to(&at("source"), &at("over-target"));
    fs::write(at("new"), "new over old").unwrap();
    move_to(&at("new"), &at("over-this"));
    move_to(&at("link"), &at("link-renamed"));
    if ability.sound {
        move_to(&at("fifo"), &at("fifo-renamed"));
        chmod(at("fifo-renamed"), 0o602).unwrap();
        rename_with(&at("swap-a"), &at("swap-b"), RenameFlags::EXCHANGE).unwrap();
        move_to(&opaque.join("renamed"), &opaque.join("dir/renamed"));
    }

    move_to(&at("tree"), &at("tree-renamed"));
    fs::write(at("tree-renamed/added"), "after the rename").unwrap();
    move_to(&at("tree-renamed/sub"), &at("sub-moved-out"));
    append(at("sub-moved-out/deeper/c"), " changed");
    fs::remove_file(at("sub-moved-out/b")).unwrap();

    move_to(&at("again"), &at("once"));
    move_to(&at("once"), &at("twice"));
    fs::create_dir(at("again")).unwrap();
    fs::write(at("again/new"), "not the old one").unwrap();

    move_to(&at("nested/inner"), &at("nested/inner-renamed"));
    move_to(&at("nested"), &at("nested-renamed"));

    move_to(&at("merged"), &at("merged-renamed"));
    fs::remove_file(at("merged-renamed/deep/bottom")).unwrap();
    move_to(&at("out/of"), &at("out-of"));
    fs::remove_dir(at("out")).unwrap();

    fs::remove_dir_all(at("deleted-target")).unwrap();
    move_to(&at("replacement"), &at("deleted-target"));
    move_to(&at("deleted-target"), &at("onto-empty/inside"));
}

fn recreate(dir: &Path) {
    let at = |name: &str| dir.join(name);
    for name in ["dir", "merged", "dir-as-file", "dir-as-link"] {
        fs::remove_dir_all(at(name)).unwrap();
    }
    fs::create_dir(at("dir")).unwrap();
    fs::create_dir(at("dir/sub")).unwrap();
    fs::create_dir(at("merged")).unwrap();
    fs::write(at("merged/new"), "new").unwrap();
    fs::write(at("dir-as-file"), "now a file").unwrap();
    symlink("dir", at("dir-as-link")).unwrap();
    fs::remove_file(at("file-as-dir")).unwrap();
    fs::create_dir(at("file-as-dir")).unwrap();
    fs::write(at("file-as-dir/inside"), "x").unwrap();
    fs::remove_file(at("file")).unwrap();
    fs::write(at("file"), "recreated").unwrap();
    chmod(at("file"), 0o600).unwrap();
}

fn links(dir: &Path) {
    let at = |name: &str| dir.join(name);
    fs::hard_link(at("alone"), at("alone-linked")).unwrap();
    append(at("alone-linked"), ", now two");
    append(at("third"), ", yes");
    fs::remove_file(at("fifth")).unwrap();
    fs::write(at("new"), "three names").unwrap();
    fs::hard_link(at("new"), at("new-2")).unwrap();
    fs::hard_link(at("new"), at("new-3")).unwrap();
    fs::remove_file(at("new-2")).unwrap();
}

fn create(dir: &Path, ability: Ability) {
    let at = |name: &str| dir.join(name);
    fs::create_dir_all(at("deep/er/est")).unwrap();
    fs::write(at("deep/er/est/file"), "deep").unwrap();
    fs::write(at("large"), vec![b'L'; 300_000]).unwrap();
    fs::write(at(&long_name(if ability.sound { 255 } else { 200 })), "long name").unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"\xff\xfe odd\n")), "odd name").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 20).unwrap();
    symlink("deep/er", at("link")).unwrap();
    symlink("t".repeat(1000), at("long-link")).unwrap();
    mknod(at("fifo"), FileType::Fifo, (0, 0)).unwrap();
    mknod(at("socket"), FileType::Socket, (0, 0)).unwrap();
    chmod(at("deep"), 0o2775).unwrap();
    fs::write(at("set-id"), "s").unwrap();
    chmod(at("set-id"), 0o6755).unwrap();
    set_xattr(at("set-id"), "user.created", b"with").unwrap();
    if ability.owners {
        mknod(at("device"), FileType::CharacterDevice, (1, 3)).unwrap();
        fs::write(at("owned"), "o").unwrap();
        chown(at("owned"), 1234, 5678).unwrap();
        chown(at("link"), 12, 34).unwrap();
        set_xattr(at("owned"), "trusted.note", b"seen by root").unwrap();
        run_tool("setcap", [OsStr::new("cap_net_raw+ep"), at("owned").as_os_str()]);
    }
}

/// As mv(1): a union may refuse to rename a lower directory (EXDEV), then it is copied and deleted.
fn move_to(from: &Path, to: &Path) {
    run_tool("mv", [OsStr::new("-T"), OsStr::new("--"), from.as_os_str(), to.as_os_str()]);
}

fn set_acl(entries: &str, path: &Path) {
    run_tool("setfacl", [OsStr::new("-m"), OsStr::new(entries), path.as_os_str()]);
}
