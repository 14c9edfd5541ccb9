//! What a supervisor hands over to a daemon that is another program, perhaps of another version: three descriptors, through
//! the socket that is the other one's standard input, each beside the number of the form.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::MountError;
use super::estate::Estate;
use super::layer_identities::LayerIdentities;
use super::options::{Options, UpperDirs};
use crate::sys::mount::MountIdentity;
use crate::sys::{backing, descriptor_passing};

/// The form of all that is handed over: of [`Will`], of the estate, and of the ids of nodes. To be another number as soon as
/// one of them means something else.
pub const FORMAT: u8 = 1;

/// What the next daemon has to be told besides the estate.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Will {
    /// Where it was mounted.
    pub mountpoint: OsString,
    /// Which mount it is.
    pub identity: MountIdentity,
    /// The texts of `-o`. They mean what they always meant.
    pub options: Vec<OsString>,
    /// Instead of those in `options`: absolute.
    pub layers: LayerPaths,
    /// What lies there.
    pub identities: LayerIdentities,
    /// Whether it was asked to stay in the foreground, where signals may be ignored.
    pub foreground: bool,
    /// Whether the log goes to syslog.
    pub syslog: bool,
}

/// The layers by their paths.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerPaths {
    lower: Vec<OsString>,
    data_only: Vec<OsString>,
    upper: Option<(OsString, OsString)>,
    /// Of an image that was mounted by its seal: the checksums of the indexes, top first.
    sealed: Vec<String>,
}

impl LayerPaths {
    /// Those of `options`.
    pub fn of(options: &Options) -> Self {
        let paths =
            |paths: &[PathBuf]| paths.iter().map(|path| path.clone().into_os_string()).collect();
        let upper = options.upper.clone();
        Self {
            lower: paths(&options.lower),
            data_only: paths(&options.data_only),
            upper: upper.map(|dirs| (dirs.upper.into_os_string(), dirs.work.into_os_string())),
            sealed: options.sealed.iter().map(|hash| hash.to_hex().to_string()).collect(),
        }
    }

    /// Puts them into `options`.
    fn apply(&self, options: &mut Options) -> io::Result<()> {
        let paths = |names: &[OsString]| names.iter().map(PathBuf::from).collect();
        options.lower = paths(&self.lower);
        options.data_only = paths(&self.data_only);
        options.upper = self
            .upper
            .as_ref()
            .map(|(upper, work)| UpperDirs { upper: upper.into(), work: work.into() });
        let sealed = self.sealed.iter().map(blake3::Hash::from_hex);
        options.sealed = sealed.collect::<Result<_, _>>().map_err(io::Error::other)?;
        Ok(())
    }
}

impl Will {
    /// The options of the mount.
    ///
    /// # Errors
    /// When this version does not know them.
    pub fn options(&self) -> Result<Options, MountError> {
        let unknown = |error: String| MountError::Handover(error);
        let mut options =
            Options::parse_for_image(&self.options).map_err(|error| unknown(error.to_string()))?;
        if let Some(line) = options.warnings.first() {
            log::info!("{line}");
        }
        self.layers.apply(&mut options).map_err(|error| unknown(error.to_string()))?;
        Ok(options)
    }

    /// Hands everything over.
    ///
    /// # Errors
    /// When the other end is gone, or there is no memory.
    pub fn send(&self, to: &UnixStream, estate: &Estate, device: &OwnedFd) -> io::Result<()> {
        let mut text: File = backing::memory_file()?.into();
        text.write_all(&serde_json::to_vec(self)?)?;
        text.rewind()?;
        for descriptor in [text.as_fd(), estate.as_fd(), device.as_fd()] {
            descriptor_passing::send(to.as_fd(), FORMAT, descriptor)?;
        }
        Ok(())
    }

    /// Takes what was handed over, with the estate and the device.
    ///
    /// # Errors
    /// [`MountError::Handover`] if it is of another form, or nothing was.
    pub fn receive(from: &UnixStream) -> Result<(Self, Estate, OwnedFd), MountError> {
        let next = || match descriptor_passing::receive(from.as_fd()) {
            Ok(Some((FORMAT, Some(descriptor)))) => Ok(descriptor),
            Ok(Some((FORMAT, None)) | None) => {
                Err(MountError::Handover("nothing is handed over".into()))
            }
            Ok(Some((other, _))) => Err(MountError::Handover(format!(
                "what is handed over has form {other}, this program knows {FORMAT}"
            ))),
            Err(error) => Err(MountError::Handover(error.to_string())),
        };
        let (text, estate, device) = (next()?, next()?, next()?);
        let mut bytes = Vec::new();
        let read = File::from(text).read_to_end(&mut bytes);
        read.map_err(|error| MountError::Handover(error.to_string()))?;
        let will = serde_json::from_slice(&bytes);
        let will = will.map_err(|error| MountError::Handover(error.to_string()))?;
        Ok((will, Estate::from(estate), device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_arrives() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let texts = vec![OsString::from("lowerdir=a:b,volatile,uidmapping=0:5:1")];
        let mut options = Options::parse_for_image(&texts).unwrap();
        options.lower = vec!["/whole/a".into(), "/whole/b".into()];
        options.sealed = vec![blake3::hash(b"index")];
        let will = Will {
            mountpoint: "/m".into(),
            identity: MountIdentity::of(std::fs::File::open("/").unwrap()).unwrap(),
            options: texts,
            layers: LayerPaths::of(&options),
            identities: LayerIdentities::settle(&options, std::path::Path::new("/m")).unwrap().1,
            foreground: true,
            syslog: false,
        };
        let estate = Estate::new().unwrap();
        let device = backing::memory_file().unwrap();
        will.send(&ours, &estate, &device).unwrap();
        let (received, known, _) = Will::receive(&theirs).unwrap();
        assert_eq!(received.options().unwrap(), options);
        assert_eq!(received.identity, will.identity);
        estate.serve(6).unwrap();
        assert_eq!(known.served().unwrap(), 7);
    }

    #[test]
    fn another_form_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        descriptor_passing::send(ours.as_fd(), FORMAT + 1, theirs.as_fd()).unwrap();
        let line = Will::receive(&theirs).unwrap_err().to_string();
        assert!(line.contains("has form 2"), "{line}");
    }
}
