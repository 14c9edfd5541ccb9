//! ioctl(2): the inode flags of lsattr(1) and chattr(1).

use fuser::INodeNo;
use rustix::ioctl::opcode;

use super::Adapter;
use crate::sys::inode_flags::Extended;
use crate::sys::{Errno, Result};

const GET_FLAGS: u32 = opcode::read::<libc::c_long>(b'f', 1) as u32;
const SET_FLAGS: u32 = opcode::write::<libc::c_long>(b'f', 2) as u32;

/// The ioctls of inode flags.
enum InodeFlagsCall {
    /// `FS_IOC_GETFLAGS`
    Get,
    /// `FS_IOC_SETFLAGS`
    Set(u32),
    /// `FS_IOC_FSGETXATTR`
    GetExtended,
    /// `FS_IOC_FSSETXATTR`
    SetExtended(Extended),
}

impl InodeFlagsCall {
    /// Understands the calls that the kernel itself makes, and so has checked (linux/fs.h: `_IOR('f', 1, long)`,
    /// `_IOW('f', 2, long)`, `_IOR('X', 31, struct fsxattr)`, `_IOW('X', 32, struct fsxattr)`). Any other number
    /// comes straight from a program: the setter with an `int`, above all, would be open to everybody.
    fn parse(command: u32, input: &[u8]) -> Option<Self> {
        match command {
            GET_FLAGS => Some(Self::Get),
            SET_FLAGS => {
                let bytes = input.get(..4)?.try_into().ok()?;
                Some(Self::Set(u32::from_ne_bytes(bytes)))
            }
            0x801c_581f => Some(Self::GetExtended),
            0x401c_5820 => Some(Self::SetExtended(input.get(..28)?.try_into().ok()?)),
            _ => None,
        }
    }
}

impl Adapter {
    /// Carries a call out; its answer has at most `output_size` bytes.
    ///
    /// # Errors
    /// `ENOTTY` for a call that is none about inode flags.
    pub(super) fn inode_flags(
        &self,
        ino: INodeNo,
        command: u32,
        input: &[u8],
        output_size: u32,
    ) -> Result<Vec<u8>> {
        match InodeFlagsCall::parse(command, input) {
            Some(InodeFlagsCall::Set(_) | InodeFlagsCall::SetExtended(_))
                if !self.agreed().checks_flags =>
            {
                Err(Errno::OPNOTSUPP)
            }
            Some(InodeFlagsCall::Get) => self
                .overlay
                .inode_flags(self.node(ino))
                .map(|flags| flags_bytes(flags, output_size)),
            Some(InodeFlagsCall::Set(flags)) => {
                self.changed(ino, self.overlay.set_inode_flags(self.node(ino), flags))
            }
            Some(InodeFlagsCall::GetExtended) => {
                self.overlay.extended_flags(self.node(ino)).map(|value| value.to_vec())
            }
            Some(InodeFlagsCall::SetExtended(value)) => {
                self.changed(ino, self.overlay.set_extended_flags(self.node(ino), &value))
            }
            None => Err(Errno::NOTTY),
        }
    }

    /// Has the kernel ask again for the attributes of a node: it does not know which calls of ioctl(2) change the
    /// time of the last change of attributes.
    pub(super) fn forget_attributes(&self, ino: INodeNo) {
        // A negative offset stands for attributes alone (`FUSE_NOTIFY_INVAL_INODE`).
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(ino, -1, 0)
        {
            log::debug!("attributes of node {ino} cannot be invalidated: {error}");
        }
    }

    /// The answer to an ioctl(2) that has set something.
    fn changed(&self, ino: INodeNo, set: Result<()>) -> Result<Vec<u8>> {
        set.map(|()| {
            self.forget_attributes(ino);
            Vec::new()
        })
    }
}

/// The answer to `Get`, in as many bytes as the caller has room for.
fn flags_bytes(flags: u32, size: u32) -> Vec<u8> {
    let bytes = u64::from(flags).to_le_bytes();
    let native =
        if cfg!(target_endian = "big") { flags.to_be_bytes() } else { flags.to_le_bytes() };
    if size >= 8 { bytes.to_vec() } else { native.to_vec() }
}
