//! The mount as the kernel is asked for it, by mount(2) or through fusermount3.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::mount::MountFlags;
use rustix::process::{getgid, getuid};

use super::options::{Allow, Atime, VfsOptions};

/// Type, source, flags and rights of one mount.
///
/// What the caller left open: `default_permissions` and `noatime` always. With mount(2) also
/// `allow_other`, `suid` and `dev`, as kernel overlayfs gives root (in a user namespace the kernel
/// ignores devices and foreign set-id bits by itself); fusermount3 enforces `nosuid,nodev`, and
/// `allow_other` needs the consent of /etc/fuse.conf.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// The type is `fuse.SUBTYPE`.
    pub subtype: OsString,
    /// The first field of /proc/mounts.
    pub source: OsString,
    /// Flags for mount(2).
    pub flags: MountFlags,
    /// Who may use the mount, where the caller has said so.
    pub allow: Option<Allow>,
    /// SELinux contexts by option name, without quotes.
    pub contexts: Vec<(&'static str, OsString)>,
}

impl MountSpec {
    /// `program` names the type, and the source if neither `fsname` nor `source` does;
    /// `read_only` where there is nothing to write to.
    pub fn new(vfs: &VfsOptions, program: &OsStr, source: Option<&OsStr>, read_only: bool) -> Self {
        Self {
            subtype: vfs.subtype.as_deref().unwrap_or(program).to_owned(),
            source: vfs.fs_name.as_deref().or(source).unwrap_or(program).to_owned(),
            flags: flags(vfs, read_only),
            allow: vfs.allow,
            contexts: vfs.contexts.clone(),
        }
    }

    /// The filesystem type for mount(2).
    pub fn fs_type(&self) -> OsString {
        let mut name = OsString::from("fuse.");
        name.push(&self.subtype);
        name
    }

    /// The data of mount(2), for the device open as number `device`; with the SELinux contexts,
    /// which a kernel without SELinux refuses, if `contexts`.
    pub fn data(&self, device: i32, contexts: bool) -> Vec<u8> {
        let (user, group) = (getuid().as_raw(), getgid().as_raw());
        let mut data = format!(
            "fd={device},rootmode=40755,user_id={user},group_id={group},default_permissions"
        )
        .into_bytes();
        // Who mounts directly is root: for the kernel `allow_root` is then to let nobody else in.
        if self.allow != Some(Allow::Root) {
            data.extend(b",allow_other");
        }
        for (name, value) in self.contexts.iter().filter(|_| contexts) {
            // Quoted, because a context of several categories has commas.
            data.extend([b",", name.as_bytes(), b"=\"", value.as_bytes(), b"\""].concat());
        }
        data
    }

    /// The `-o` text for fusermount3, of what it knows and lets an ordinary user ask for.
    pub fn fusermount_options(&self, allow_other: bool) -> OsString {
        let mut options = String::from("default_permissions");
        if allow_other {
            options.push_str(",allow_other");
        }
        for (flag, name) in FUSERMOUNT_FLAGS {
            if self.flags.contains(*flag) {
                options.extend([",", *name]);
            }
        }
        let mut options = options.into_bytes();
        for (name, value) in [("subtype", &self.subtype), ("fsname", &self.source)] {
            options.extend([b",", name.as_bytes(), b"="].concat());
            options.extend(escape(value.as_bytes()));
        }
        OsString::from_vec(options)
    }

    /// Names of what was asked for and cannot be had through fusermount3.
    pub fn beyond_fusermount(&self) -> Vec<&'static str> {
        let flags = MOUNT_ONLY_FLAGS.iter().filter(|(flag, _)| self.flags.contains(*flag));
        let flags = flags.map(|(_, name)| *name);
        flags.chain(self.contexts.iter().map(|(name, _)| *name)).collect()
    }
}

/// The flags that fusermount3 has a name for and allows everybody.
const FUSERMOUNT_FLAGS: &[(MountFlags, &str)] = &[
    (MountFlags::RDONLY, "ro"),
    (MountFlags::NOEXEC, "noexec"),
    (MountFlags::NOATIME, "noatime"),
    (MountFlags::SYNCHRONOUS, "sync"),
    (MountFlags::DIRSYNC, "dirsync"),
];

const MOUNT_ONLY_FLAGS: &[(MountFlags, &str)] = &[
    (MountFlags::NODIRATIME, "nodiratime"),
    (MountFlags::STRICTATIME, "strictatime"),
    (MountFlags::NOSYMFOLLOW, "nosymfollow"),
];

/// The flags for mount(2); `read_only` where there is nothing to write to.
pub(super) fn flags(vfs: &VfsOptions, read_only: bool) -> MountFlags {
    let atime = match vfs.atime {
        None | Some(Atime::Never) => MountFlags::NOATIME,
        Some(Atime::Relative) => MountFlags::RELATIME,
        Some(Atime::Strict) => MountFlags::STRICTATIME,
    };
    let switches = [
        (read_only || vfs.read_only == Some(true), MountFlags::RDONLY),
        (vfs.suid == Some(false), MountFlags::NOSUID),
        (vfs.dev == Some(false), MountFlags::NODEV),
        (vfs.exec == Some(false), MountFlags::NOEXEC),
        (vfs.dir_atime == Some(false), MountFlags::NODIRATIME),
        (vfs.sync == Some(true), MountFlags::SYNCHRONOUS),
        (vfs.dir_sync, MountFlags::DIRSYNC),
        (vfs.no_symfollow, MountFlags::NOSYMFOLLOW),
    ];
    let on = switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag);
    on.fold(atime, MountFlags::union)
}

/// fusermount3 splits its options at commas, except after a backslash.
fn escape(value: &[u8]) -> Vec<u8> {
    let escaped = value.iter().flat_map(|byte| match byte {
        b',' | b'\\' => vec![b'\\', *byte],
        _ => vec![*byte],
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(vfs: &VfsOptions) -> MountSpec {
        MountSpec::new(vfs, OsStr::new("plyfs"), None, false)
    }

    #[test]
    fn type_and_source_come_from_the_options_then_the_source_then_the_program() {
        let none = VfsOptions::default();
        let plain = spec(&none);
        assert_eq!((plain.fs_type(), plain.source), ("fuse.plyfs".into(), "plyfs".into()));
        let named = MountSpec::new(&none, OsStr::new("plyfs"), Some(OsStr::new("none")), false);
        assert_eq!(named.source, "none");
        let vfs = VfsOptions {
            fs_name: Some("a,b".into()),
            subtype: Some("other".into()),
            ..VfsOptions::default()
        };
        let chosen = MountSpec::new(&vfs, OsStr::new("plyfs"), Some(OsStr::new("none")), false);
        assert_eq!((chosen.fs_type(), chosen.source), ("fuse.other".into(), "a,b".into()));
    }

    #[test]
    fn without_an_upper_the_superblock_is_read_only() {
        let vfs = VfsOptions { read_only: Some(false), ..VfsOptions::default() };
        let spec = MountSpec::new(&vfs, OsStr::new("plyfs"), None, true);
        assert_eq!(spec.flags, MountFlags::RDONLY | MountFlags::NOATIME);
    }

    #[test]
    fn flags_follow_the_options() {
        assert_eq!(spec(&VfsOptions::default()).flags, MountFlags::NOATIME);
        let vfs = VfsOptions {
            read_only: Some(true),
            suid: Some(false),
            dev: Some(false),
            exec: Some(false),
            atime: Some(Atime::Strict),
            dir_atime: Some(false),
            sync: Some(true),
            dir_sync: true,
            no_symfollow: true,
            ..VfsOptions::default()
        };
        let all = MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC
            | MountFlags::STRICTATIME
            | MountFlags::NODIRATIME
            | MountFlags::SYNCHRONOUS
            | MountFlags::DIRSYNC
            | MountFlags::NOSYMFOLLOW;
        assert_eq!(spec(&vfs).flags, all);
        assert_eq!(spec(&vfs).beyond_fusermount(), ["nodiratime", "strictatime", "nosymfollow"]);
        let options = spec(&vfs).fusermount_options(false);
        assert_eq!(
            options,
            "default_permissions,ro,noexec,sync,dirsync,subtype=plyfs,fsname=plyfs"
        );
    }

    #[test]
    fn fusermount_options_are_escaped() {
        let vfs = VfsOptions { fs_name: Some("a,b\\c".into()), ..VfsOptions::default() };
        assert_eq!(
            spec(&vfs).fusermount_options(true),
            "default_permissions,allow_other,noatime,subtype=plyfs,fsname=a\\,b\\\\c"
        );
    }

    #[test]
    fn contexts_are_quoted_in_the_data_and_can_be_left_out() {
        let contexts = vec![("context", OsString::from("u:r:t:s0:c1,c2"))];
        let spec = spec(&VfsOptions { contexts, ..VfsOptions::default() });
        assert_eq!(spec.beyond_fusermount(), ["context"]);
        let text = |contexts| String::from_utf8(spec.data(7, contexts)).unwrap();
        assert!(text(true).ends_with(",allow_other,context=\"u:r:t:s0:c1,c2\""));
        assert!(text(true).starts_with("fd=7,rootmode=40755,user_id="));
        assert!(text(false).ends_with(",allow_other"));
        let spec = MountSpec { allow: Some(Allow::Root), contexts: Vec::new(), ..spec };
        assert!(spec.data(7, true).ends_with(b",default_permissions"));
    }
}
