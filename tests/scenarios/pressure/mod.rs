//! What happens when something runs out: space, inodes, descriptors, memory, or the patience of many users
//! of the same names.

mod copy_up;
mod crowd;
mod descriptors;
mod full_disk;
