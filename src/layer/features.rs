//! What the filesystem of the upper layer can do.
//!
//! Tried out in the workdir at every mount, and kept there, as the target of the symbolic link
//! `plyfs/features`, for a mount that has no room to try: so a full filesystem can be mounted to delete
//! from it.

use super::dir_marks::Namespaces;
use super::workdir::Workdir;
use crate::sys::{Errno, Result};

/// What a text in this form begins with.
const FORM: &str = "1";

/// What has been found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Where marks can be written.
    pub namespaces: Namespaces,
    /// Whether two names can be exchanged (RENAME_EXCHANGE).
    pub exchange: bool,
    /// Whether there can be whiteout devices.
    pub whiteouts: bool,
    /// Whether a rename can leave a whiteout behind (RENAME_WHITEOUT).
    pub rename_with_whiteout: bool,
}

impl Features {
    /// Tries everything out.
    ///
    /// # Errors
    /// `ENOSPC` and `EDQUOT` where there is no room to try and nothing is known from an earlier mount.
    pub fn find(work: &Workdir) -> Result<Self> {
        match Self::probe(work) {
            Ok(found) => {
                if work.noted_features().as_deref() != Some(&found.to_text()) {
                    work.note_features(&found.to_text())?;
                }
                Ok(found)
            }
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
                work.noted_features().and_then(|text| Self::from_text(&text)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    fn probe(work: &Workdir) -> Result<Self> {
        let whiteouts = work.can_make_whiteouts()?;
        Ok(Self {
            namespaces: probe_namespaces(work)?,
            exchange: work.can_exchange()?,
            whiteouts,
            rename_with_whiteout: whiteouts && work.can_rename_with_whiteout()?,
        })
    }

    fn words(&mut self) -> [(&'static str, &mut bool); 5] {
        [
            ("trusted", &mut self.namespaces.trusted),
            ("user", &mut self.namespaces.user),
            ("exchange", &mut self.exchange),
            ("whiteouts", &mut self.whiteouts),
            ("rename-whiteout", &mut self.rename_with_whiteout),
        ]
    }

    /// The words for what is there, each after a comma.
    fn to_text(mut self) -> String {
        let there = self.words().into_iter().filter(|(_, there)| **there);
        there.fold(FORM.into(), |text, (word, _)| text + "," + word)
    }

    /// `None` for a text that another version wrote.
    fn from_text(text: &str) -> Option<Self> {
        let mut found = Self {
            namespaces: Namespaces { trusted: false, user: false },
            exchange: false,
            whiteouts: false,
            rename_with_whiteout: false,
        };
        let words = text.strip_prefix(FORM)?;
        for word in words.split(',').skip(1) {
            *found.words().into_iter().find(|(known, _)| *known == word)?.1 = true;
        }
        Some(found)
    }
}

fn probe_namespaces(work: &Workdir) -> Result<Namespaces> {
    let stage = work.stage();
    let can = |namespaces: Namespaces| match namespaces.try_out(&stage) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            Ok(false)
        }
        Err(error) => Err(error),
    };
    Ok(Namespaces {
        trusted: can(Namespaces { trusted: true, user: false })?,
        user: can(Namespaces { trusted: false, user: true })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_comes_back() {
        for text in ["1", "1,user", "1,trusted,user,exchange,whiteouts,rename-whiteout"] {
            assert_eq!(Features::from_text(text).map(Features::to_text).as_deref(), Some(text));
        }
        for other in ["", "2,user", "1,user,levitation"] {
            assert_eq!(Features::from_text(other), None, "{other}");
        }
    }
}
