//! What random cases may hold: that depends on who runs them, and on what.

use crate::cases::layer::Prefix;
use crate::cases::model::Rules;
use crate::cases::text::Text;

#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Owners, devices and trusted attributes.
    pub privileged: bool,
    pub rules: Rules,
    pub marks: Marks,
    /// Access lists are kept.
    pub acls: bool,
    /// Layers beside those that hold only data: at least one, at most so many.
    pub layers: (usize, usize),
    /// Bytes of the longest name.
    pub longest_name: usize,
    /// Names may look like `.wh.` files.
    pub names_like_marks: bool,
    /// Attributes may be called like those of a union.
    pub private_attributes: bool,
    /// Files in layers may have several names.
    pub lower_links: bool,
    pub ops: Ops,
    /// Mounted again, a union may rename directories in another way.
    pub may_switch: bool,
}

/// The marks in generated layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    None,
    /// Only those that the kernel writes, with this prefix.
    OfKernel(Prefix),
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    None,
    /// What a filesystem is asked for.
    Requests,
    /// What programs ask for, in the course of which so many upper layers at most are sealed.
    SystemCalls(usize),
}

impl Profile {
    /// Everything that root can make in a union.
    pub fn of_root(rules: Rules) -> Profile {
        Profile {
            privileged: true,
            rules,
            marks: Marks::All,
            acls: true,
            layers: (2, 9),
            longest_name: 255,
            names_like_marks: true,
            private_attributes: true,
            lower_links: true,
            ops: Ops::Requests,
            may_switch: true,
        }
    }

    /// Whether objects can be called `name` in every layer.
    pub fn can_have(&self, name: &Text) -> bool {
        let fits = name.0.len() <= self.longest_name;
        fits && (self.names_like_marks || !name.0.starts_with(b".wh."))
    }

    pub fn has_marks(&self) -> bool {
        self.marks != Marks::None
    }

    /// The prefix of all marks, if only those of the kernel are wanted.
    pub fn kernel_prefix(&self) -> Option<Prefix> {
        match self.marks {
            Marks::OfKernel(prefix) => Some(prefix),
            Marks::None | Marks::All => None,
        }
    }
}
