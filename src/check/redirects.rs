//! Two redirects to one lower directory.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::layer::{Name, Redirect};

/// Where the redirects seen so far lead: 16 bytes for each, and the directories on the way of the walk.
#[derive(Default)]
pub struct Redirects {
    taken: HashSet<u128>,
    levels: Vec<(Name, Option<Redirect>)>,
}

impl Redirects {
    /// Follows the walk into a directory.
    pub fn enter(&mut self, name: Name, redirect: Option<Redirect>) {
        self.levels.push((name, redirect));
    }

    /// Follows the walk out of the directory that it entered last.
    pub fn leave(&mut self) {
        self.levels.pop();
    }

    /// Whether a redirect that was seen before leads where this one does, of a directory in the one that was
    /// entered last.
    pub fn is_taken(&mut self, redirect: &Redirect) -> bool {
        let target: Vec<&Name> = match redirect {
            Redirect::Absolute(dirs, name) => dirs.iter().chain([name]).collect(),
            Redirect::Sibling(name) => {
                let mut target = self.lower_path();
                target.push(name);
                target
            }
        };
        let digest = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, &target).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        let digest = digest(0) << 64 | digest(1);
        !self.taken.insert(digest)
    }

    /// Where in the lower layers the directory lies that was entered last.
    fn lower_path(&self) -> Vec<&Name> {
        let mut names = Vec::new();
        for (name, redirect) in self.levels.iter().skip(1).rev() {
            match redirect {
                None => names.push(name),
                Some(Redirect::Sibling(name)) => names.push(name),
                Some(Redirect::Absolute(dirs, name)) => {
                    names.push(name);
                    names.extend(dirs.iter().rev());
                    break;
                }
            }
        }
        names.reverse();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from(OsStr::new(text))
    }

    #[test]
    fn redirects_are_compared_by_where_they_lead() {
        let redirect = |text: &str| Redirect::parse(text.as_bytes()).unwrap();
        let mut seen = Redirects::default();
        seen.enter(name("/"), None);
        assert!(!seen.is_taken(&redirect("/a/b")));
        seen.enter(name("moved"), Some(redirect("/a")));
        assert!(seen.is_taken(&redirect("b")));
        assert!(!seen.is_taken(&redirect("c")));
        seen.leave();
        seen.enter(name("a"), None);
        assert!(seen.is_taken(&redirect("c")));
    }
}
