//! Files with several names: one node, one link count, also when some of the names are lower ones and the
//! file has been copied up (see `layer::index` for what is kept on disk).

use super::Overlay;
use super::locate::Located;
use super::lookup::Found;
use super::node::{Node, NodeId};
use super::node_state::Place;
use super::node_table::Key;
use crate::layer::index::{Identity, LinkCount, link_count};
use crate::layer::{LayerIndex, LowerPlace};
use crate::sys::{Errno, Object, Result, Stat};

/// The key of an inode in the upper layer.
pub(super) fn upper_key(stat: &Stat) -> Key {
    Key { layer: LayerIndex::UPPER, dev: stat.dev, ino: stat.ino }
}

impl Overlay {
    /// How far the union's link count is above that of an upper inode with several names.
    pub(super) fn upper_link_bias(&self, object: &Object) -> Result<i32> {
        Ok(match link_count(object)? {
            Some(LinkCount::Upper(bias)) => bias,
            // Relative to the lower inode, whose count is not at hand here: a crash came between the
            // steps of a copy-up. The index entry is no name of the union.
            Some(LinkCount::Lower(_)) => -1,
            None => 0,
        })
    }

    /// Completes what was found about a lower file with several names: its copy, if one of the others has
    /// been changed, or the number of names that have been deleted.
    pub(super) fn resolve_lower_links(&self, place: &LowerPlace, found: &mut Found) -> Result<()> {
        let Some(upper) = self.upper.as_ref().filter(|upper| !upper.index.is_empty()) else {
            return Ok(());
        };
        let identity = match self.lowers.identity(place) {
            Ok(identity) => identity,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(name) = upper.index.copy_of(&identity)? else {
            found.link_bias = upper.index.dropped(&identity);
            return Ok(());
        };
        let object = upper.index.object(&name)?;
        let lower_links = found.stat.nlink;
        let copy = self.find_upper(object.clone(), Place::Indexed(name.clone()), true)?;
        if copy.stat.kind() != found.stat.kind() {
            log::error!("workdir: index/{} is no copy of what it stands for", name.display());
            return Err(Errno::IO);
        }
        *found = copy;
        found.link_bias = match link_count(&object)? {
            Some(LinkCount::Upper(bias)) => bias,
            Some(LinkCount::Lower(bias)) => lower_links as i32 + bias - found.stat.nlink as i32,
            None => lower_links as i32 - found.stat.nlink as i32,
        };
        Ok(())
    }

    /// What identifies the lower object of a node over mounts; `None` where nothing does, and of an upper one.
    pub fn lower_identity(&self, id: NodeId) -> Result<Option<Identity>> {
        let node = self.node(id)?;
        self.at(&node, |located| match located {
            Located::Upper(_) => Ok(None),
            Located::Lower(place) => match self.lowers.identity(&place) {
                Err(Errno::OPNOTSUPP) => Ok(None),
                identity => identity.map(Some),
            },
        })
    }

    /// Counts a name that only lower layers had and that is deleted, or that the upper inode has itself from
    /// now on: the union's count is one less above the inode's own.
    pub(super) fn count_lower_name(&self, node: &Node) -> Result<()> {
        let upper = self.writable()?;
        let (place, bias, linked) = {
            let mut state = node.state.lock();
            state.link_bias -= 1;
            (state.place.clone(), state.link_bias, !state.keys.is_empty())
        };
        match place {
            Place::Indexed(name) => upper.index.set_bias(&name, bias),
            Place::Lower(place) if linked => match self.lowers.identity(&place) {
                Ok(identity) => upper.index.set_dropped(&identity, bias),
                Err(Errno::OPNOTSUPP) => Ok(()),
                Err(error) => Err(error),
            },
            _ => Ok(()),
        }
    }

    /// Takes the index entry of `node` away if the union has no name for it any more.
    pub(super) fn drop_unused_index(&self, node: &Node) -> Result<()> {
        let Place::Indexed(name) = node.state.lock().place.clone() else { return Ok(()) };
        let upper = self.writable()?;
        let object = upper.index.object(&name)?;
        let stat = object.stat()?;
        let bias = node.state.lock().link_bias;
        if stat.nlink.saturating_add_signed(bias) > 0 {
            return Ok(());
        }
        self.pin(node, &object)?;
        {
            let mut state = node.state.lock();
            state.place = Place::Upper;
            state.link_bias += 1;
        }
        upper.index.remove(&name)
    }

    /// The identity of a lower file with several names, to enter its copy in the index by.
    pub(super) fn lower_link_identity(
        &self,
        node: &Node,
        place: &LowerPlace,
    ) -> Result<Option<Identity>> {
        let upper = self.writable()?;
        if node.state.lock().keys.is_empty() || !upper.namespaces.any() {
            return Ok(None);
        }
        match self.lowers.identity(place) {
            Ok(identity) => Ok(Some(identity).filter(|id| upper.index.has_room(id))),
            Err(Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
