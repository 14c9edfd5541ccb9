//! A daemon that a supervisor of another program, perhaps of another version, has started to go on for its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;
use std::sync::Arc;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::Signal;
use rustix::stdio::{dup2_stdin, stdin};

use super::daemon_child::{OPENED, READY, live};
use super::error::MountError;
use super::handover::Will;
use super::mounted::Mounted;
use super::supervisor::{Heir, upgrades};
use super::{daemon, heard_signals, log_sink, settle_process};
use crate::fuse::upgrade::Upgraded;

/// Goes on as the supervisor at the other end of standard input says, until the end of the mount; the exit status.
///
/// To be called before the process starts a thread.
///
/// # Errors
/// When nobody can be told.
pub fn go_on() -> Result<i32, MountError> {
    let socket = fcntl_dupfd_cloexec(stdin(), 3).map_err(MountError::system("stdin"))?;
    let (empty, _null) = daemon::nowhere().map_err(MountError::system("/dev/null"))?;
    dup2_stdin(&empty).map_err(MountError::system("stdin"))?;
    Ok(live(UnixStream::from(socket), succeed))
}

fn succeed(say: &mut UnixStream) -> Result<(), MountError> {
    let (will, estate, device) = Will::receive(say)?;
    if will.syslog {
        log_sink::use_syslog();
    }
    let options = will.options()?;
    settle_process();
    will.identities.check()?;
    let mountpoint = Path::new(&will.mountpoint);
    let mounted = Mounted::inherited(mountpoint, will.identity, &device)?;
    let heard: Vec<Signal> = heard_signals(will.foreground);
    let telling = || MountError::system("telling the supervisor");
    say.write_all(&[OPENED]).map_err(telling())?;
    let mut told = [0; 3];
    // It has another one go on, or has ended.
    let Ok(()) = say.read_exact(&mut told) else { exit(1) };
    let [asked, high, low] = told;
    let generation = u16::from_be_bytes([high, low]);
    let version = env!("CARGO_PKG_VERSION");
    let before = (asked != 0).then(|| Upgraded::GoesOn(version.into()));
    let heir = Heir { options: &options, mountpoint, estate: &Arc::new(estate), generation };
    heir.serve(device, mounted, &heard, upgrades(say, before)?, || {
        log::warn!("{}: plyfs {version} goes on", mountpoint.display());
        say.write_all(&[READY]).map_err(telling())
    })
}
