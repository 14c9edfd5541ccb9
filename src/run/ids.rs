//! Which ids a container has: for root those that there are, all of the machine or of the user namespace; for an ordinary
//! user, and for root without rights, 0, which is the caller, and from 1 on the subordinate ids of /etc/subuid and
//! /etc/subgid (subuid(5)).

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, getgid, getuid};
use rustix::thread::{CapabilitySet, capabilities};

use super::error::RunError;

/// The ids of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Those of the caller, who is root and may mount: the container has no user namespace of its own.
    Same {
        /// The users of the caller's user namespace, by first id and length.
        users: Vec<(u32, u32)>,
        /// Its groups.
        groups: Vec<(u32, u32)>,
        /// Whether setgroups(2) is allowed there.
        can_set_groups: bool,
    },
    /// 0 alone, which is the caller.
    One,
    /// Id 0, which is the caller, and from 1 on these ranges.
    Mapped {
        /// Of users, by first id and length.
        users: Vec<(u32, u32)>,
        /// Of groups.
        groups: Vec<(u32, u32)>,
    },
}

/// The programs that may write what an ordinary user may not.
const WRITERS: [&str; 2] = ["newuidmap", "newgidmap"];

impl Ids {
    /// Those that whoever runs this can have.
    pub fn of_caller() -> Self {
        // Where there is nothing to be read, there is nothing to be had.
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        if rustix::process::geteuid().is_root() && may_mount() {
            return Self::Same {
                users: known(&read("/proc/self/uid_map")),
                groups: known(&read("/proc/self/gid_map")),
                can_set_groups: read("/proc/self/setgroups").trim() != "deny",
            };
        }
        let uid = getuid().as_raw();
        let name = name_of(&read("/etc/passwd"), uid);
        let users = ranges(&read("/etc/subuid"), name.as_deref(), uid);
        let groups = ranges(&read("/etc/subgid"), name.as_deref(), uid);
        let can_be_written = WRITERS.iter().all(|program| is_in_path(program));
        if users.is_empty() || groups.is_empty() || !can_be_written {
            return Self::One;
        }
        Self::Mapped { users, groups }
    }

    /// Whether the container needs a user namespace.
    pub fn in_namespace(&self) -> bool {
        !matches!(self, Self::Same { .. })
    }

    /// Whether groups can be given up and taken on.
    pub fn groups_can_be_set(&self) -> bool {
        match self {
            Self::Same { can_set_groups, .. } => *can_set_groups,
            Self::One => false,
            Self::Mapped { .. } => true,
        }
    }

    /// Whether the container has this group.
    pub fn has_group(&self, gid: u32) -> bool {
        match self {
            Self::Same { groups, .. } => contains(groups, gid),
            Self::One => gid == 0,
            Self::Mapped { groups, .. } => u64::from(gid) <= total(groups),
        }
    }

    /// Whether the container has this user.
    pub fn has_user(&self, uid: u32) -> bool {
        match self {
            Self::Same { users, .. } => contains(users, uid),
            Self::One => uid == 0,
            Self::Mapped { users, .. } => u64::from(uid) <= total(users),
        }
    }

    /// Writes the maps of the process `pid`, which has a new user namespace. To be called outside of it.
    ///
    /// # Errors
    /// What the kernel, newuidmap or newgidmap says.
    pub fn write_maps(&self, pid: Pid) -> Result<(), RunError> {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        match self {
            Self::Same { .. } => Ok(()),
            Self::One => {
                let write = |file: &str, text: &str| {
                    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
                    fs::write(&path, text).map_err(RunError::system(path))
                };
                // In this order: without it the map of groups is refused (user_namespaces(7)).
                write("setgroups", "deny")?;
                write("uid_map", &format!("0 {uid} 1\n"))?;
                write("gid_map", &format!("0 {gid} 1\n"))
            }
            Self::Mapped { users, groups } => {
                let [newuidmap, newgidmap] = WRITERS;
                run(newuidmap, pid, uid, users)?;
                run(newgidmap, pid, gid, groups)
            }
        }
    }
}

/// Root of a container has no right to mount, but may have one in a user namespace, as an ordinary user.
fn may_mount() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// The ids of this user namespace, by the lines `INSIDE OUTSIDE LENGTH` of a map (user_namespaces(7)).
fn known(map: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut words = line.split_whitespace();
        let first = words.next()?.parse().ok()?;
        Some((first, words.nth(1)?.parse().ok()?))
    };
    map.lines().filter_map(range).collect()
}

fn contains(ranges: &[(u32, u32)], id: u32) -> bool {
    ranges.iter().any(|(first, length)| id.checked_sub(*first).is_some_and(|at| at < *length))
}

fn total(ranges: &[(u32, u32)]) -> u64 {
    ranges.iter().map(|(_, length)| u64::from(*length)).sum()
}

/// `PROGRAM PID 0 OWN 1 1 START LENGTH ...`
fn run(program: &str, pid: Pid, own: u32, ranges: &[(u32, u32)]) -> Result<(), RunError> {
    let mut command = Command::new(program);
    command.arg(pid.as_raw_nonzero().to_string()).args(["0", &own.to_string(), "1"]);
    let mut inside = 1;
    for (start, length) in ranges {
        command.args([inside, u64::from(*start), u64::from(*length)].map(|n| n.to_string()));
        inside += u64::from(*length);
    }
    let output = command.stdin(Stdio::null()).output().map_err(RunError::system(program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed");
    let line = line.strip_prefix(program).map_or(line, |line| line.trim_start_matches([':', ' ']));
    Err(RunError::failed(format!("{program}: {line}")))
}

fn is_in_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path)
            .any(|directory: std::path::PathBuf| is_file(&directory.join(program)))
    })
}

fn is_file(path: &Path) -> bool {
    let metadata: io::Result<fs::Metadata> = fs::metadata(path);
    metadata.is_ok_and(|metadata| metadata.is_file())
}

/// The name of a user, by the lines of passwd(5).
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The ranges of a user, by the lines of subuid(5): `NAME|UID:START:LENGTH`.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    // More lines than this the kernel refuses, and one is the user's own id.
    const MOST: usize = 339;
    let range = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let is_theirs = name == Some(owner) || owner.parse() == Ok(uid);
        let (start, length) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (is_theirs && length > 0).then_some((start, length))
    };
    text.lines().filter_map(range).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_user_by_name_or_number() {
        let text =
            "ann:100000:65536\nbob:165536:65536\n1001:300000:10\nann:400000:0\nann:x:1\nann\n";
        assert_eq!(ranges(text, Some("ann"), 1000), [(100_000, 65536)]);
        assert_eq!(ranges(text, Some("bob"), 1001), [(165_536, 65536), (300_000, 10)]);
        assert_eq!(ranges(text, None, 7), []);
    }

    #[test]
    fn a_name_is_found_by_its_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:100::/home/ann:\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(passwd, 100), None);
    }

    #[test]
    fn a_container_has_as_many_ids_as_are_mapped() {
        let mapped = Ids::Mapped { users: vec![(100_000, 10), (200_000, 5)], groups: vec![(1, 1)] };
        assert!(mapped.has_user(0) && mapped.has_user(15) && !mapped.has_user(16));
        assert!(mapped.has_group(1) && !mapped.has_group(2));
        assert!(Ids::One.has_user(0) && !Ids::One.has_user(1));
    }

    #[test]
    fn root_has_the_ids_of_its_user_namespace() {
        let same = |users: &str, groups: &str| Ids::Same {
            users: known(users),
            groups: known(groups),
            can_set_groups: true,
        };
        let machine = same("         0          0 4294967295\n", "0 0 4294967295");
        assert!(machine.has_user(70_000) && machine.has_group(4_294_967_294));
        let few = same("0 1000 1\n5 100000 2\n", "0 1000 1");
        assert!(few.has_user(0) && few.has_user(6) && !few.has_user(1) && !few.has_user(7));
        assert!(few.has_group(0) && !few.has_group(5));
    }
}
