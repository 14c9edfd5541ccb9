//! What is not checked: layers in use, and command lines that are wrong.

use std::path::Path;
use std::process::{Command, Output};

use rustix::mount::{MountFlags, mount};

use crate::needs_root;
use crate::support::mount::program;
use crate::support::{Program, Union};

fn plyfs(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn refused(arguments: &[&str], status: i32, line: &str) {
    let output = plyfs(arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("plyfs: {line}\n"));
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert!(output.stdout.is_empty());
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_command_lines_have_the_status_of_fsck() {
    refused(&["check"], 16, "missing <UPPER>; try `plyfs --help`");
    refused(&["check", "a", "b"], 16, "unexpected argument 'b' found; try `plyfs --help`");
    let empty =
        "option --lower: a layer has an empty path; write DIR:DIR, and `\\:` for a colon in a name";
    refused(&["check", "--lower", "a:", "u"], 16, empty);
    refused(&["check", "/nonexistent"], 8, "/nonexistent: does not exist");
    refused(&["check", "/dev/null"], 8, "/dev/null: not a directory");
    refused(&["convert", "u"], 2, "missing --to <FORM>; try `plyfs --help`");
}

#[test]
fn layers_in_use_by_plyfs_are_refused() {
    needs_root!();
    let union = Union::new().lower("f a").mount();
    let (upper, work) = (union.upper(""), union.work(""));
    let line = |path| format!("{path}: in use by plyfs, which holds its lock; unmount it first");
    refused(&["check", utf8(&upper)], 8, &line(utf8(&upper)));
    refused(&["convert", "--to", "kernel", utf8(&upper)], 1, &line(utf8(&upper)));
    let other = union.scratch().join("other");
    std::fs::create_dir(&other).unwrap();
    refused(&["check", "--work", utf8(&work), utf8(&other)], 8, &line(utf8(&work)));
}

#[test]
fn layers_in_use_by_the_kernel_are_refused() {
    needs_root!();
    let mut union = Union::new().lower("f a").program(Program::Kernel).mount();
    let (upper, merged) = (union.upper(""), union.path(""));
    let line = format!(
        "{}: the upperdir or workdir of the kernel's overlay on {}, says /proc/PID/mountinfo; unmount it first",
        upper.display(),
        merged.display().to_string().trim_end_matches('/')
    );
    refused(&["check", utf8(&upper)], 8, &line);
    union.unmount();
    union.check(&[]).expect(0, "");
}

/// A container has a mount namespace of its own, in which the layers may have other paths.
#[test]
fn layers_in_use_by_the_kernel_in_another_mount_namespace_are_refused() {
    needs_root!();
    let union = Union::new().lower("f a").layers();
    let script = format!(
        "mkdir {0}/seen && mount --bind {0} {0}/seen && cd / && mount -t overlay overlay \
         -o lowerdir={0}/seen/lower0,upperdir={0}/seen/upper,workdir={0}/seen/work {0}/merged && \
         echo ready && read end",
        union.scratch().display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut container = command.spawn().unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(container.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let checked = union.check_alone(&[]);
    drop(container.stdin.take());
    container.wait().unwrap();
    assert_eq!(checked.status, 8);
    assert!(checked.error.contains("the kernel's overlay on"), "{}", checked.error);
}

#[test]
fn what_is_mounted_in_a_layer_is_not_entered() {
    needs_root!();
    let union = Union::new().lower("f a").upper("d inside/mounted").layers();
    mount("none", union.upper("inside/mounted"), "tmpfs", MountFlags::empty(), None).unwrap();
    let checked = union.check_alone(&[]);
    assert_eq!(checked.status, 8);
    assert!(
        checked.error.ends_with("upper/inside/mounted: something is mounted here; unmount it\n")
    );
}

#[test]
fn findings_are_one_line_each() {
    needs_root!();
    let union = Union::new().lower("f a").upper("o \"d\\ne\"\nw \"d\\ne/gone\"").layers();
    let upper = union.upper("");
    let upper = utf8(&upper).trim_end_matches('/');
    let output = plyfs(&["check", upper]);
    let expected = format!(
        "{upper}/d\\ne/gone: problem: whiteout in an opaque directory: the kernel lists an entry that cannot be opened; \
         --repair makes the directory opaque for all readers and removes the whiteout\n\
         {upper}: 1 problem; 3 objects, 0 notes\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(output.status.code(), Some(4));
    let output = plyfs(&["check", "--repair", upper]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("cannot be opened; removed\n"), "{text}");
    assert!(text.ends_with(": 1 problem, 1 repaired; 3 objects, 0 notes\n"), "{text}");
    let output = plyfs(&["check", upper]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{upper}: clean; 2 objects, 0 notes\n")
    );
}
