//! POSIX access control lists as the model needs them (`struct posix_acl_xattr_header`, version 2).

use crate::cases::op::stranger;
use crate::cases::text::Text;

pub const ACCESS: &str = "system.posix_acl_access";
pub const DEFAULT: &str = "system.posix_acl_default";

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<(u16, u16, u32)>);

impl Acl {
    /// No more than permission bits say.
    pub fn minimal() -> Acl {
        Acl(vec![(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 4, NO_ID)])
    }

    /// With an entry for one more user.
    pub fn with_user() -> Acl {
        let users = [(USER_OBJ, 7, NO_ID), (USER, 7, stranger().0)];
        let others = [(GROUP_OBJ, 4, NO_ID), (MASK, 7, NO_ID), (OTHER, 0, NO_ID)];
        Acl([users.as_slice(), &others].concat())
    }

    /// With an entry for one more group, limited by the mask.
    pub fn with_group() -> Acl {
        let owner = [(USER_OBJ, 7, NO_ID)];
        let groups =
            [(GROUP_OBJ, 7, NO_ID), (GROUP, 7, stranger().1), (MASK, 5, NO_ID), (OTHER, 5, NO_ID)];
        Acl([owner.as_slice(), &groups].concat())
    }

    pub fn parse(value: &Text) -> Acl {
        let entry = |bytes: &[u8]| {
            let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            (short(0), short(2), id)
        };
        Acl(value.0[4..].chunks(8).map(entry).collect())
    }

    pub fn value(&self) -> Text {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in &self.0 {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        Text(bytes)
    }

    /// Whether it says more than permission bits can.
    pub fn is_extended(&self) -> bool {
        self.0.len() > 3
    }

    /// The permission bits that show for it: the mask stands in for the group.
    pub fn mode(&self) -> u32 {
        let group = if self.is_extended() { MASK } else { GROUP_OBJ };
        let bits = |tag| u32::from(self.0.iter().find(|entry| entry.0 == tag).unwrap().1);
        bits(USER_OBJ) << 6 | bits(group) << 3 | bits(OTHER)
    }

    /// What `chmod` makes of it.
    pub fn set_mode(&mut self, mode: u32) {
        let group = if self.is_extended() { MASK } else { GROUP_OBJ };
        for (tag, perm, _) in &mut self.0 {
            let shift = match *tag {
                USER_OBJ => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            *perm = (mode >> shift & 7) as u16;
        }
    }
}
