//! Suites of others, run through a real mount; what they themselves say decides. `scripts/test` installs them and
//! names them by `PLYFS_SUITE_PJDFSTEST` and `PLYFS_SUITE_FSX`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::needs_root;
use crate::support::Union;
use crate::support::mount::{kernel_under_test, program};
use crate::support::posix::chmod;
use crate::support::privilege::skip;
use crate::volume::Kind;

const LIFETIME: Duration = Duration::from_secs(400);

/// The operations of one run of fsx: some seconds of work.
const OPERATIONS: &str = "20000";

#[test]
fn heavy_pjdfstest_fails_in_nothing_that_is_not_listed() {
    needs_root!();
    let Some(pjdfstest) = suite("PLYFS_SUITE_PJDFSTEST") else { return };
    let union = Union::new().lower("d d").lifetime(LIFETIME).mount();
    // Its users walk there.
    chmod(union.scratch(), 0o755).unwrap();
    let other = union.scratch().join("other");
    fs::create_dir(&other).unwrap();
    Kind::Tmpfs.mount_empty(&other);
    let mut command = Command::new(pjdfstest);
    command.arg("-c").arg(configuration("pjdfstest"));
    command.arg("-p").arg(union.path("")).arg("-s").arg(&other);
    assert!(passed(&succeeds(&mut command)) > 330);
}

#[test]
fn heavy_pjdfstest_changes_nothing_in_a_union_remounted_read_only() {
    needs_root!();
    let Some(pjdfstest) = suite("PLYFS_SUITE_PJDFSTEST") else { return };
    let union = Union::new().lower("d d").lifetime(LIFETIME).mount();
    let mut command = Command::new(pjdfstest);
    command.arg("-c").arg(configuration("pjdfstest-erofs"));
    command.arg("-p").arg(union.path("")).arg("erofs");
    command.env("PATH", path_with_mount(union.scratch()));
    assert!(passed(&succeeds(&mut command)) > 10);
}

/// How many cases passed, by the summary of pjdfstest.
fn passed(said: &str) -> u32 {
    let summary = said.lines().find(|line| line.starts_with("Summary: ")).unwrap();
    let passed = summary.split(", ").find_map(|part| part.strip_suffix(" passed"));
    passed.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{summary}"))
}

#[test]
fn heavy_fsx_finds_what_it_wrote_in_a_truncated_lower_file() {
    fsx("fsx");
}

#[test]
fn heavy_fsx_finds_what_it_wrote_in_a_lower_file_of_fixed_size() {
    fsx("fsx-lower");
}

fn fsx(kind: &str) {
    needs_root!();
    let Some(fsx) = suite("PLYFS_SUITE_FSX") else { return };
    let fill = |dir: &Path| fs::write(dir.join("file"), [b'x'; 256 << 10]).unwrap();
    let union = Union::new().lower_with(fill).lifetime(LIFETIME).mount();
    // Another at every run, as for all random cases.
    let chosen = std::env::var("PLYFS_SEED");
    let seed = chosen.unwrap_or_else(|_| UNIX_EPOCH.elapsed().unwrap().subsec_nanos().to_string());
    println!("PLYFS_SEED={seed}");
    let mut command = Command::new(fsx);
    command.args(["-q", "-N", OPERATIONS, "-S", &seed, "-f"]).arg(configuration(kind));
    command.arg("-P").arg(union.scratch()).arg(union.path("file"));
    let said = succeeds(&mut command);
    assert!(said.contains("All operations completed"), "{said}");
}

fn suite(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable);
    if path.is_none() {
        skip(module_path!(), &format!("{variable} does not name the suite's program"));
    }
    path.map(PathBuf::from)
}

fn configuration(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/suites/{name}.toml"))
}

/// Has `mount -o remount` lead to the program under test, which mount(8) would call only where it is installed.
fn path_with_mount(scratch: &Path) -> OsString {
    let bin = scratch.join("bin");
    fs::create_dir(&bin).unwrap();
    if !kernel_under_test() {
        symlink(program(), bin.join("mount")).unwrap();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    let said = said.concat();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}
