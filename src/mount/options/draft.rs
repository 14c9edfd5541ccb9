//! The options while they are being read, and the checks that need all of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::excerpt;
use super::grammar::{self, Item};
use super::{Cache, Io, OptionError, Options, UpperDirs, table};

/// What one option may change. Values that only mean something together wait here until the end.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub options: Options,
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
    pub squash_to_root: bool,
    pub single_threaded: bool,
}

impl Draft {
    /// Reads the text of one `-o` argument.
    pub fn read(&mut self, text: &OsStr) -> Result<(), OptionError> {
        grammar::items(text.as_bytes(), table::is_quotable).try_for_each(|item| self.apply(item))
    }

    fn apply(&mut self, Item { name, value }: Item<'_>) -> Result<(), OptionError> {
        match table::find(name, value.is_some()) {
            Some(spec) => spec.apply(self, value),
            None => self.pass_over(name, value),
        }
    }

    /// What no table lists. One of our own with a space at an end was meant to be known.
    fn pass_over(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), OptionError> {
        let meant = name.trim_ascii();
        if meant != name
            && let Some(spec) = table::find(meant, value.is_some())
        {
            let problem = "there is a space before or after its name; write none around commas";
            return Err(OptionError::new(spec.name, problem));
        }
        let shown = match value {
            Some(value) if meant.is_empty() => format!("{}={}", excerpt(name), excerpt(value)),
            _ => excerpt(name),
        };
        self.warn(format!("unknown mount option ignored: {shown}"));
        Ok(())
    }

    fn warn(&mut self, line: String) {
        if !self.options.warnings.contains(&line) {
            self.options.warnings.push(line);
        }
    }

    /// Checks what the options need of each other.
    pub fn finish(mut self) -> Result<Options, OptionError> {
        if self.options.vfs.remount {
            return Ok(self.options);
        }
        let vfs = &self.options.vfs;
        let names = [("fsname", &vfs.fs_name), ("subtype", &vfs.subtype)];
        if let Some((option, _)) =
            names.into_iter().find(|(_, name)| name.as_ref().is_some_and(|name| name.is_empty()))
        {
            return Err(OptionError::new(option, "the name is empty"));
        }
        let directories =
            self.upper.is_some() || self.work.is_some() || !self.options.data_only.is_empty();
        if self.options.lower.is_empty() && directories {
            return Err(OptionError::no_layers());
        }
        self.options.upper = match (self.upper.take(), self.work.take()) {
            (Some(upper), Some(work)) => Some(UpperDirs { upper, work }),
            (Some(_), None) => {
                let problem = "missing; upperdir also needs workdir=DIR, \
                               an empty directory on the filesystem of upperdir";
                return Err(OptionError::new("workdir", problem));
            }
            (None, work) => {
                if work.is_some() {
                    self.warn(
                        "workdir has no effect without upperdir: the mount is read-only".into(),
                    );
                }
                None
            }
        };
        self.check_passthrough()?;
        self.check_supervise()?;
        // fuse-overlayfs: squash_to_uid and squash_to_gid outrank squash_to_root.
        let root = self.squash_to_root.then_some(0);
        self.options.squash_uid = self.options.squash_uid.or(root);
        self.options.squash_gid = self.options.squash_gid.or(root);
        if self.single_threaded {
            self.options.threads = Some(1);
        }
        Ok(self.options)
    }

    /// The next daemon would know nothing of these.
    fn check_supervise(&self) -> Result<(), OptionError> {
        let options = &self.options;
        let others = [
            ("io=passthrough", options.io == Io::Passthrough),
            ("timeout", options.timeout.is_some()),
            ("ino32_t", options.ino32),
        ];
        match others.into_iter().find(|(_, given)| options.supervise && *given) {
            Some((other, _)) => Err(OptionError::new(
                "supervise",
                format!("does not go with {other}; leave one out"),
            )),
            None => Ok(()),
        }
    }

    /// `io=passthrough` leaves data to the kernel and the layer's filesystem, which know nothing of these.
    fn check_passthrough(&self) -> Result<(), OptionError> {
        let options = &self.options;
        if options.io != Io::Passthrough {
            return Ok(());
        }
        let others = [
            ("writeback", options.writeback == Some(true)),
            ("sync", options.vfs.sync == Some(true)),
            ("cache", options.cache == Cache::Never),
        ];
        match others.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => {
                Err(OptionError::new(option, "does not go with io=passthrough; use io=auto"))
            }
            None => Ok(()),
        }
    }
}
