//! How the two unions are mounted, and what cases may hold there.

use crate::cases::layer::is_privileged;
use crate::cases::model::Rules;
use crate::cases::op::Redirect;
use crate::cases::profile::{Marks, Ops, Profile};
use crate::support::Program;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// plyfs as it is without options; it makes the lower layers.
    Default,
    /// Both write redirects and metacopies; the kernel makes the lower layers.
    Redirects,
    /// Neither renames directories that have lower parts.
    Refusal,
    /// As root of a user namespace, where the kernel writes `user.overlay.` attributes, no redirects
    /// and no index; it makes the lower layers.
    UserNamespace,
}

impl Setup {
    /// What renames do until a case says otherwise.
    pub fn redirect(self) -> Redirect {
        match self {
            Setup::Default => Redirect::Copy,
            Setup::Redirects => Redirect::Mark,
            Setup::Refusal | Setup::UserNamespace => Redirect::Refuse,
        }
    }

    /// Who makes the lower layers by what a case does before it seals them.
    pub fn maker(self) -> Program {
        if self == Setup::Default { Program::Plyfs } else { Program::Kernel }
    }

    pub fn options(self, program: &Program, redirect: Redirect) -> Vec<&'static str> {
        let kernel = *program == Program::Kernel;
        // What is not synced costs nothing, and is as good until the machine goes down.
        let mut options = vec!["volatile"];
        options.extend(match (kernel, redirect) {
            (false, Redirect::Copy) => vec!["redirect_dir=copy"],
            (_, Redirect::Refuse) if self == Setup::UserNamespace => vec![],
            (_, Redirect::Refuse) => vec!["redirect_dir=follow"],
            (_, Redirect::Mark | Redirect::Copy) => vec!["redirect_dir=on"],
        });
        match (kernel, self) {
            (false, Setup::UserNamespace) => options.push("redirect_dir=off"),
            (false, Setup::Redirects) => options.push("metacopy=on"),
            (false, _) => {}
            (true, Setup::UserNamespace) => options.extend(["userxattr", "xino=auto"]),
            (true, Setup::Redirects) => options.extend(["index=on", "xino=on", "metacopy=on"]),
            (true, _) => options.extend(["index=on", "xino=on", "metacopy=off"]),
        }
        options
    }

    pub fn profile(self) -> Profile {
        let rules = Rules { redirect: Some(self.redirect()), ..Rules::default() };
        Profile {
            privileged: is_privileged(),
            marks: Marks::None,
            layers: (2, 4),
            // The kernel has neither marks nor private attributes of this kind.
            names_like_marks: false,
            private_attributes: false,
            // Without an index, the kernel breaks links of lower files.
            lower_links: self != Setup::UserNamespace,
            ops: Ops::SystemCalls(3),
            // The kernel reads no metacopies without writing redirects, and has none in a namespace.
            may_switch: matches!(self, Setup::Default | Setup::Refusal),
            ..Profile::of_root(rules)
        }
    }
}
