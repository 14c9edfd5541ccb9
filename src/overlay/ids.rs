//! Owners: how the ids stored in layers and the ids shown in the mount belong together.

use super::id_map::{IdMap, ShownId, StoredId};

/// A translation of user and group ids.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// The users of layers and mount.
    pub users: IdMap,
    /// The groups of layers and mount.
    pub groups: IdMap,
    /// Everything shows as owned by this user; changes of owner are accepted and ignored.
    pub squash_uid: Option<u32>,
    /// Everything shows as owned by this group; changes of owner are accepted and ignored.
    pub squash_gid: Option<u32>,
}

impl Ids {
    /// The user to show for a stored one.
    pub fn shown_uid(&self, stored: u32) -> u32 {
        self.squash_uid.unwrap_or_else(|| self.users.to_shown(StoredId(stored)))
    }

    /// The group to show for a stored one.
    pub fn shown_gid(&self, stored: u32) -> u32 {
        self.squash_gid.unwrap_or_else(|| self.groups.to_shown(StoredId(stored)))
    }

    /// The user to store for a shown one; `None` where it has no counterpart.
    pub fn stored_uid(&self, shown: u32) -> Option<u32> {
        self.users.to_stored(ShownId(shown))
    }

    /// The group to store for a shown one; `None` where it has no counterpart.
    pub fn stored_gid(&self, shown: u32) -> Option<u32> {
        self.groups.to_stored(ShownId(shown))
    }

    /// The user to store for the shown root of a namespace: where everybody is squashed to him, he is the layer's root.
    pub fn stored_root(&self, shown: u32) -> Option<u32> {
        if self.squash_uid == Some(shown) { Some(0) } else { self.stored_uid(shown) }
    }

    /// Whether owners are squashed.
    pub fn squashes(&self) -> bool {
        self.squash_uid.is_some() || self.squash_gid.is_some()
    }
}
