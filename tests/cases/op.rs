//! Operations on a mounted tree. `Debug` prints the code that makes them, so that a minimised
//! failure can be pasted into `regressions`.

use std::fmt;

use rustix::fs::FallocateFlags;

use crate::cases::layer::{Data, Leaf, Mode, is_privileged, own_ids};
use crate::cases::text::Text;

/// What an operation on one object applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    At(Text),
    /// The object kept by `Op::Hold` in this slot, whether or not it still has a name.
    Held(u8),
}

/// How a new object is made. `Debug` prints the builder calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct New {
    pub mode: u32,
    pub umask: u32,
    /// User and group of the caller.
    pub caller: (u32, u32),
}

/// Permissions `mode`, no umask, made by the user who runs the test.
pub fn new(mode: u32) -> New {
    New { mode, umask: 0, caller: own_ids() }
}

impl New {
    pub fn umask(self, umask: u32) -> New {
        New { umask, ..self }
    }

    pub fn by(self, uid: u32, gid: u32) -> New {
        New { caller: (uid, gid), ..self }
    }
}

impl fmt::Debug for New {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "new({:#o})", self.mode)?;
        if self.umask != 0 {
            write!(f, ".umask({:#o})", self.umask)?;
        }
        if self.caller != own_ids() {
            write!(f, ".by({}, {})", self.caller.0, self.caller.1)?;
        }
        Ok(())
    }
}

/// The user and group of an unprivileged write.
pub fn stranger() -> (u32, u32) {
    if is_privileged() { (1000, 1000) } else { own_ids() }
}

/// One change of attributes, as the kernel combines them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Permissions(Mode),
    Owner(Option<u32>, Option<u32>),
    /// Access and modification time, in seconds and nanoseconds since 1970.
    Times(Option<(i64, u32)>, Option<(i64, u32)>),
    /// The new size, and the user who truncates.
    Size(u64, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    Extend,
    KeepSize,
    PunchHole,
    ZeroRange,
}

impl Allocate {
    /// As fallocate(2) has it.
    pub fn flags(self) -> FallocateFlags {
        match self {
            Allocate::Extend => FallocateFlags::empty(),
            Allocate::KeepSize => FallocateFlags::KEEP_SIZE,
            Allocate::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Allocate::ZeroRange => FallocateFlags::ZERO_RANGE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Always,
    IfAbsent,
    IfPresent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    Data,
    Hole,
}

/// What a rename of a directory that has a lower part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Copies it up as a whole.
    Copy,
    /// Moves its upper part and notes where the lower one lies.
    Mark,
    /// Fails.
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Lookup(Text),
    Create(Text, New),
    MakeDir(Text, New),
    MakeNode(Text, Leaf, New),
    /// The name, then the target.
    MakeSymlink(Text, Text, New),
    /// A file with content that gets its name last (`O_TMPFILE`).
    MakeUnnamed(Text, New, Data),
    Link(Target, Text),
    Unlink(Text),
    RemoveDir(Text),
    Rename(Text, Text, How),
    /// At an offset; the flag asks to drop set-id bits.
    Write(Target, u64, Data, bool),
    /// Through a shared mapping: at an offset, so many times one byte.
    MapWrite(Target, u64, u8, usize),
    Read(Target, u64, usize),
    SetAttr(Target, Change),
    Allocate(Target, Allocate, u64, u64),
    CopyRange(Target, u64, Target, u64, usize),
    Seek(Target, u64, Whence),
    Sync(Target),
    Stat(Target),
    ReadLink(Target),
    SetXattr(Target, Text, Text, Set),
    GetXattr(Target, Text),
    ListXattr(Target),
    RemoveXattr(Target, Text),
    /// Reads a directory, then again from every cookie.
    ReadDir(Text),
    /// Reads the first entries of a directory, to be finished by `ReadRest`.
    ReadSome(Text, usize),
    ReadRest,
    /// Keeps the object at a path in a slot.
    Hold(Text, u8),
    Release(u8),
    /// Gives all references to a path and everything below it back.
    Forget(Text),
    /// Closes and reopens the filesystem.
    Remount,
    /// The same, with another way to rename directories from then on.
    RemountTo(Redirect),
    /// Closes the filesystem and reopens it with an empty upper layer on top of what was the upper
    /// one.
    Seal,
}

impl Op {
    /// The objects that it is about by more than a name.
    pub fn targets(&self) -> Vec<&Target> {
        use Op::*;
        match self {
            Link(target, _) | Write(target, ..) | MapWrite(target, ..) | Read(target, ..) => {
                vec![target]
            }
            SetAttr(target, _) | Allocate(target, ..) | Seek(target, ..) => vec![target],
            Sync(target) | Stat(target) | ReadLink(target) | ListXattr(target) => vec![target],
            SetXattr(target, ..) | GetXattr(target, _) | RemoveXattr(target, _) => vec![target],
            CopyRange(from, _, to, ..) => vec![from, to],
            Lookup(_) | Create(..) | MakeDir(..) | MakeNode(..) | MakeSymlink(..)
            | MakeUnnamed(..) | Unlink(_) | RemoveDir(_) | Rename(..) | ReadDir(_)
            | ReadSome(..) | ReadRest | Hold(..) | Release(_) | Forget(_) | Remount
            | RemountTo(_) | Seal => vec![],
        }
    }

    /// Whether the operation is refused without a writable layer.
    pub fn mutates(&self) -> bool {
        use Op::*;
        match self {
            Create(..) | MakeDir(..) | MakeNode(..) | MakeSymlink(..) | MakeUnnamed(..)
            | Link(..) | Unlink(..) | RemoveDir(..) | Rename(..) | Write(..) | MapWrite(..)
            | SetAttr(..) | Allocate(..) | CopyRange(..) | SetXattr(..) | RemoveXattr(..) => true,
            Lookup(_) | Read(..) | Seek(..) | Sync(_) | Stat(_) | ReadLink(_) | GetXattr(..)
            | ListXattr(_) | ReadDir(_) | ReadSome(..) | ReadRest | Hold(..) | Release(_)
            | Forget(_) | Remount | RemountTo(_) | Seal => false,
        }
    }
}
