//! Operations are carried out for different users.

use rustix::fs::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_thread_res_gid, set_thread_res_uid,
};

/// Acts as another user, with every capability but those in `without`, as the kernel's own file
/// operations see it.
pub fn acting_as<T>((uid, gid): (u32, u32), without: CapabilitySet, act: impl FnOnce() -> T) -> T {
    let before = capabilities(None).unwrap();
    let own = (rustix::process::geteuid(), rustix::process::getegid());
    set_thread_res_gid(None::<Gid>, Some(Gid::from_raw(gid)), None::<Gid>).unwrap();
    set_thread_res_uid(None::<Uid>, Some(Uid::from_raw(uid)), None::<Uid>).unwrap();
    let mut reduced = capabilities(None).unwrap();
    reduced.effective = reduced.permitted.difference(without);
    set_capabilities(None, reduced).unwrap();
    let result = act();
    set_capabilities(None, before).unwrap();
    set_thread_res_uid(None::<Uid>, Some(own.0), None::<Uid>).unwrap();
    set_thread_res_gid(None::<Gid>, Some(own.1), None::<Gid>).unwrap();
    set_capabilities(None, before).unwrap();
    result
}
