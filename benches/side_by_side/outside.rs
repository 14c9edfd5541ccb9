//! The process that starts those who measure, and reports.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::Outcome;
use super::arguments::Arguments;
use super::inside::RESULTS;
use super::kernel_caches;
use super::machine::Machine;
use super::report;
use super::results::{Mode, ModeResults, Results};
use super::run::succeed;
use super::workloads;

/// The variable that names fuse-overlayfs 2.0.0.
const SECOND: &str = "PLYFS_PEER_FUSE_OVERLAYFS_2";

/// Runs everything and writes the reports. Fails if plyfs did something wrong.
pub fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    if arguments.list {
        for row in workloads::all() {
            println!("{:10} {:28} {}", row.family, row.name, row.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let dir = arguments.dir();
    fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let _lock = lock(&dir)?;
    let machine = Machine::here(&dir, arguments);
    let mut modes = Vec::new();
    for mode in arguments.modes() {
        if mode == Mode::Root && !geteuid().is_root() {
            eprintln!("bench: not root: only rootless mounts are measured");
            continue;
        }
        modes.push(measure(arguments, mode, &dir)?);
    }
    let results = Results { machine, modes };
    report::write(arguments, &results)?;
    Ok(match faults_of_plyfs(&results) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Two runs would remove each other's trees.
fn lock(dir: &Path) -> Outcome<File> {
    let file = File::create(dir.join("lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            Err(format!("another run uses {}: wait, or name another --dir", dir.display()).into())
        }
        result => Ok(result.map(|()| file)?),
    }
}

/// Says what plyfs failed at, and counts it.
fn faults_of_plyfs(results: &Results) -> usize {
    let mut faults = 0;
    for mode in &results.modes {
        for row in &mode.rows {
            for measured in row.measured.iter().filter(|m| m.contestant.starts_with("plyfs")) {
                if let Some(fault) = &measured.fault {
                    eprintln!("bench: {} {} {}: {fault}", measured.contestant, mode.mode, row.name);
                    faults += 1;
                }
            }
        }
    }
    faults
}

fn measure(arguments: &Arguments, mode: Mode, dir: &Path) -> Outcome<ModeResults> {
    let dir = dir.join(mode.to_string());
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let program = bring_programs(arguments, &dir)?;
    let mut command = within(mode, &dir)?;
    command.arg(program).args(std::env::args_os().skip(1));
    command.arg("--dir").arg(&dir).arg("--inside").arg(mode.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(questions), Some(answers)) = (child.stdout.take(), child.stdin.take()) else {
        return Err("no pipes to the process that measures".into());
    };
    let drops_before = kernel_caches::drops();
    let ours = kernel_caches::serve(questions, answers)?;
    let foreign = kernel_caches::drops().saturating_sub(drops_before).saturating_sub(ours);
    if foreign > 0 {
        eprintln!(
            "bench: the caches of the kernel were emptied {foreign} times by others: warm rows were not warm"
        );
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("measuring {mode}: {status}").into());
    }
    let results = serde_json::from_slice(&fs::read(dir.join(RESULTS))?)?;
    fs::remove_dir_all(dir)?;
    Ok(results)
}

/// Puts copies of all programs where an ordinary user can reach them; this one's is returned.
fn bring_programs(arguments: &Arguments, dir: &Path) -> Outcome<PathBuf> {
    let programs = dir.join("programs");
    fs::create_dir_all(&programs)?;
    fs::copy(&arguments.program, programs.join("plyfs"))
        .map_err(|error| format!("{}: {error}", arguments.program.display()))?;
    if let Some(second) = std::env::var_os(SECOND) {
        fs::copy(&second, programs.join("fuse-overlayfs-2"))
            .map_err(|error| format!("{SECOND}={}: {error}", second.display()))?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).map(|dir| dir.join("fuse-overlayfs"));
    if let Some(first) = first.into_iter().find(|program| program.is_file()) {
        fs::copy(first, programs.join("fuse-overlayfs-1"))?;
    }
    let this = programs.join("side_by_side");
    fs::copy(std::env::current_exe()?, &this)?;
    Ok(this)
}

/// The start of a command that runs the rest of it in namespaces of its own.
fn within(mode: Mode, dir: &Path) -> Outcome<Command> {
    const NAMESPACES: [&str; 6] =
        ["--mount", "--propagation=slave", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut command = Command::new("unshare");
    if mode == Mode::Rootless && geteuid().is_root() {
        let (uid, gid) = ordinary_user()?;
        chown(dir, Some(uid), Some(gid))?;
        command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
        command.args(["--clear-groups", "--inh-caps=-all"]);
        for needed in [dir, Path::new("/dev/fuse")] {
            let mut test = Command::new("setpriv");
            test.args(command.get_args()).args(["test", "-w"]).arg(needed);
            succeed(&mut test).map_err(|_| {
                let needed = needed.display();
                format!("user {uid} cannot write to {needed}: chmod it, or name another --dir")
            })?;
        }
        command.arg("unshare");
    }
    if mode == Mode::Rootless {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(NAMESPACES).env("HOME", dir);
    Ok(command)
}

/// The first account for people, else that of `daemon`, which exists everywhere.
fn ordinary_user() -> Outcome<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let ids = accounts.lines().filter_map(|line| {
        let mut words = line.split(':').skip(2).map(str::parse::<u32>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    Ok(ids.into_iter().find(|(uid, _)| (1000..60000).contains(uid)).unwrap_or((1, 1)))
}
