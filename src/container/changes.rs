//! What a container changes of its image.

use std::path::Path;

use super::{Container, live_mounts};
use crate::changes::Layers;
use crate::store::image::Image;
use crate::store::{Result, Store};
use crate::sys::{Errno, open};

impl Container {
    /// The image that it is over, whether or not that has a name still.
    pub fn image(&self, store: &Store) -> Result<Image> {
        store.image_with_manifest(&self.record.manifest)
    }

    /// Its layers, as far as they are on disk: what programs have written into its mount, if it is mounted, is sent there
    /// first.
    pub fn layers(&self, store: &Store) -> Result<Layers> {
        let live = live_mounts(store.root())?;
        let own = |name: &Option<String>| name.as_deref() == Some(&self.record.name);
        if let Some((_, mount)) = live.iter().find(|(_, mount)| own(&mount.container)) {
            // It may be in a mount namespace of its own, that of the process that serves it.
            let inside = mount.mountpoint.strip_prefix("/").unwrap_or(&mount.mountpoint);
            let there = Path::new("/proc").join(mount.pid.to_string()).join("root").join(inside);
            let flushed = flush(&there).or_else(|_| flush(&mount.mountpoint));
            if let Err(error) = flushed {
                let (name, point) = (&self.record.name, mount.mountpoint.display());
                log::warn!(
                    "container {name}: what is not written yet on {point} is not in it: {error}"
                );
            }
        }
        let lower = Some(store.layer_indexes(&self.record.layers));
        Ok(Layers { upper: self.upper(), lower, work: Some(self.work()) })
    }
}

fn flush(mountpoint: &Path) -> std::result::Result<(), Errno> {
    rustix::fs::syncfs(open::directory_for_reading(mountpoint)?)
}
