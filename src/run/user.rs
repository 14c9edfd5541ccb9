//! Who a program runs as: `NAME`, `UID`, each with `:GROUP`, by /etc/passwd and /etc/group of the image, as docker finds it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::error::RunError;
use super::ids::Ids;
use super::root::open_inside;

/// A user of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// More groups.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: String,
}

/// A longer /etc/passwd or /etc/group is not read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The user that `text` names, `root` if it is empty. The container's root is this process's by then.
///
/// # Errors
/// When there is no such name, or the container has no such id; when the files are none.
pub fn find(text: &str, ids: &Ids) -> Result<User, RunError> {
    let user = lookup(text, &read("/etc/passwd")?, &read("/etc/group")?)?;
    let absent = |kind: &str, id: u32| {
        RunError::failed(format!(
            "{kind} {id}: the container has no such id; an ordinary user needs more lines in /etc/subuid and \
             /etc/subgid, and newuidmap"
        ))
    };
    if !ids.has_user(user.uid) {
        return Err(absent("user", user.uid));
    }
    let groups = [user.gid].into_iter().chain(user.groups.iter().copied());
    match groups.into_iter().find(|gid| !ids.has_group(*gid)) {
        Some(gid) if gid == user.gid => Err(absent("group", gid)),
        _ => Ok(user),
    }
}

impl User {
    /// Becomes this user, for good unless capabilities allow more.
    ///
    /// # Errors
    /// Those of setgroups(2), setresgid(2), setresuid(2).
    pub fn assume(&self, ids: &Ids) -> Result<(), Errno> {
        if ids.groups_can_be_set() {
            let groups = self.groups.iter().filter(|gid| ids.has_group(**gid));
            let groups: Vec<Gid> = groups.map(|gid| Gid::from_raw(*gid)).collect();
            set_thread_groups(&groups)?;
        }
        let gid = Gid::from_raw(self.gid);
        set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
        let uid = Uid::from_raw(self.uid);
        set_thread_res_uid(Some(uid), Some(uid), Some(uid))
    }
}

/// A file of the image, which may be anything: nothing is waited for, and no more is read than makes sense.
fn read(path: &str) -> Result<String, RunError> {
    let read = || -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match open_inside(Path::new(path), flags) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut text = Vec::new();
        File::from(file).take(LONGEST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LONGEST {
            return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
        }
        Ok(text)
    };
    let text = read().map_err(RunError::system(format!("{path} in the container")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn lookup(text: &str, passwd: &str, group: &str) -> Result<User, RunError> {
    let (wanted, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let number = id(wanted);
    let account = passwd.lines().filter_map(Account::read).find(|account| {
        account.name == wanted || number.is_some_and(|number| account.uid == number)
    });
    let no_such = |kind: &str, name: &str, file: &str| {
        RunError::failed(format!("{kind} `{name}`: not in {file} of the image"))
    };
    let (uid, own_group, home) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, account.home),
        (None, Some(number)) => (number, 0, "/"),
        (None, None) => return Err(no_such("user", wanted, "/etc/passwd")),
    };
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    let groups = || group.lines().filter_map(Group::read);
    let Some(wanted_group) = wanted_group else {
        let name = account.map(|account| account.name);
        let is_member = |group: &Group<'_>| group.members.split(',').any(|m| Some(m) == name);
        let more = groups().filter(is_member).map(|group| group.gid).collect();
        return Ok(User { uid, gid: own_group, groups: more, home });
    };
    let number = id(wanted_group);
    let named = groups().find(|group| group.name == wanted_group).map(|group| group.gid);
    let gid = named.or(number).ok_or_else(|| no_such("group", wanted_group, "/etc/group"))?;
    Ok(User { uid, gid, groups: Vec::new(), home })
}

/// 2^32-1 is nobody's (setresuid(2)).
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

struct Account<'t> {
    name: &'t str,
    uid: u32,
    gid: u32,
    home: &'t str,
}

impl<'t> Account<'t> {
    /// `NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL`; lines that are none are passed over.
    fn read(line: &'t str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (id(fields.get(2)?)?, id(fields.get(3)?)?);
        Some(Self { name: fields[0], uid, gid, home: fields.get(5).copied().unwrap_or_default() })
    }
}

struct Group<'t> {
    name: &'t str,
    gid: u32,
    members: &'t str,
}

impl<'t> Group<'t> {
    /// `NAME:PASSWORD:GID:MEMBER,MEMBER`.
    fn read(line: &'t str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields.get(3).copied().unwrap_or_default();
        Some(Self { name: fields[0], gid: id(fields.get(2)?)?, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:100::/home/ann:/bin/sh\n7:x:8:9:::\n";
    const GROUP: &str =
        "root:x:0:\nusers:x:100:\nwheel:x:10:root,ann\nstaff:x:50:ann\nbad:x:y:ann\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>, String) {
        let User { uid, gid, groups, home } = lookup(text, PASSWD, GROUP).unwrap();
        (uid, gid, groups, home)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        assert_eq!(found(""), (0, 0, vec![10], "/root".into()));
        assert_eq!(found("ann"), (1000, 100, vec![10, 50], "/home/ann".into()));
        assert_eq!(found("1000"), found("ann"));
        assert_eq!(found("ann:staff"), (1000, 50, vec![], "/home/ann".into()));
        assert_eq!(found("1000:77"), (1000, 77, vec![], "/home/ann".into()));
        assert_eq!(found("4000"), (4000, 0, vec![], "/".into()));
        // A name may look like a number.
        assert_eq!(found("7"), (8, 9, vec![], "/".into()));
    }

    #[test]
    fn who_is_not_there_is_nobody() {
        for wrong in ["bob", "ann:nobody", "-1", "4294967295", "ann:4294967295"] {
            let line = lookup(wrong, PASSWD, GROUP).unwrap_err().to_string();
            assert!(line.contains("of the image"), "{line}");
        }
    }

    #[test]
    fn an_image_without_accounts_has_ids() {
        let user = lookup("5:6", "", "").unwrap();
        assert_eq!((user.uid, user.gid), (5, 6));
        assert_eq!(lookup("", "", "").unwrap().home, "/");
    }
}
