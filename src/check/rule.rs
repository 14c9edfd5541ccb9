//! Everything that a check can find: what it is, what a mount shows because of it, and what is done about it.

/// One kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// A word for programs; never changes its meaning.
    pub word: &'static str,
    /// Whether something is wrong.
    pub severity: Severity,
    /// What it is.
    pub what: &'static str,
    /// What a mount shows, or does, because of it.
    pub effect: &'static str,
    /// What `--repair` does.
    pub remedy: Remedy,
}

/// Whether something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Some reader of the layer shows what it must not, or fails.
    Problem,
    /// Worth to know; the exit status does not tell of it.
    Note,
}

impl Severity {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Note => "note",
        }
    }
}

/// What `--repair` does about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The step, as in "--repair removes it", and as in "removed".
    Repair(&'static str, &'static str),
    /// Nothing: only a human can decide, between these.
    Human(&'static str),
    /// Nothing is needed.
    Nothing(&'static str),
}

use Remedy::{Human, Nothing, Repair};
use Severity::{Note, Problem};

const REMOVE: Remedy = Repair("removes it", "removed");
const REMOVE_ATTRIBUTE: Remedy = Repair("removes the attribute", "attribute removed");

macro_rules! rules {
    ($($name:ident = $severity:ident $word:literal, $what:literal, $effect:literal, $remedy:expr;)*) => {
        $(
            #[doc = $what]
            pub const $name: &Rule = &Rule {
                word: $word,
                severity: $severity,
                what: $what,
                effect: $effect,
                remedy: $remedy,
            };
        )*
        /// All of them.
        pub const ALL: &[&Rule] = &[$($name),*];
    };
}

rules! {
    WHITEOUT_IN_OPAQUE = Problem "whiteout-in-opaque",
        "whiteout in an opaque directory",
        "the kernel lists an entry that cannot be opened",
        Repair("makes the directory opaque for all readers and removes the whiteout", "removed");
    HIDDEN_NAME = Problem "hidden-name",
        "a .wh. file beside the name that it hides",
        "plyfs and fuse-overlayfs hide the name, the kernel shows both",
        Human("remove the .wh. file to keep the name, or the name to delete it");
    OPAQUE_FILE_BESIDE_MARK = Problem "opaque-file-beside-mark",
        ".wh..wh..opq in a directory that an attribute makes opaque",
        "the kernel lists the file",
        REMOVE;
    DOT_BESIDE_WHITEOUT = Problem "dot-beside-whiteout",
        "a .wh. file beside a whiteout of the same name",
        "the kernel lists the file",
        REMOVE;
    VOID_WHITEOUT = Problem "void-whiteout",
        "a .wh. file for a name that cannot be",
        "the kernel lists the file, nobody hides anything",
        REMOVE;
    AUFS_LEFTOVER = Problem "aufs-leftover",
        "bookkeeping of AUFS",
        "it is listed as if it were a user's, or hides a file of its own kind",
        REMOVE;
    DOT_WHITEOUT = Note "dot-whiteout",
        "a whiteout of the .wh. form",
        "the kernel shows the .wh. file, and the lower file that it deletes",
        Nothing("for the kernel: plyfs convert --to kernel");
    DOT_OPAQUE = Note "dot-opaque",
        ".wh..wh..opq alone makes the directory opaque",
        "the kernel shows the file, and what lies below the directory",
        Nothing("for the kernel: plyfs convert --to kernel");
    PEER_OPAQUE = Note "peer-opaque",
        "user.fuseoverlayfs.opaque alone makes the directory opaque",
        "the kernel shows what lies below the directory",
        Nothing("for the kernel: plyfs convert --to kernel");
    PEER_ATTRIBUTE = Note "peer-attribute",
        "an attribute of fuse-overlayfs",
        "the kernel shows it as a user's",
        Nothing("harmless");
    STORED_ATTRIBUTES = Note "stored-attributes",
        "owners, modes and devices of this layer are kept in an attribute",
        "the kernel shows plain files of whoever wrote the layer",
        Nothing("for the kernel: plyfs convert --to kernel");
    UNREAD_ATTRIBUTES = Note "unread-attributes",
        "an owner and mode kept in an attribute, in a layer whose root has none",
        "no mount reads them",
        Nothing("if they should count, set the attribute on the root of the layer too");
    WHITEOUT_OVER_NOTHING = Note "whiteout-over-nothing",
        "a whiteout of a name that no lower layer has",
        "nothing",
        Nothing("harmless with these lower layers");
    WHITEOUT_ATTRIBUTES = Note "whiteout-attributes",
        "a whiteout with attributes of its own",
        "nothing",
        Nothing("harmless");
    ATTRIBUTE_WHITEOUT = Problem "attribute-whiteout",
        "a whiteout by attribute, in a directory that is not marked to hold such",
        "all readers show an empty file, and the deletion is lost",
        Human("set overlay.opaque to x on the directory to delete the name, or remove the attribute");
    OPAQUE_VALUE = Problem "opaque-value",
        "an opaque mark that is neither y nor x",
        "readers take it for no mark",
        REMOVE_ATTRIBUTE;
    REDIRECT_VALUE = Problem "redirect-value",
        "a redirect that leads nowhere",
        "what it is on cannot be read (EIO)",
        Human("write the path of the lower part, or remove the attribute to show the upper part alone");
    REDIRECT_DANGLING = Problem "redirect-dangling",
        "a redirect to what the lower layers do not have",
        "the directory shows its upper part alone",
        Human("give all lower layers, or remove the attribute");
    REDIRECT_DUPLICATE = Problem "redirect-duplicate",
        "a redirect to where another directory's redirect leads",
        "one lower directory shows in two places",
        Human("remove the redirect of the copy, or make that opaque");
    METACOPY_VALUE = Problem "metacopy-value",
        "a metacopy mark that the kernel does not understand",
        "the kernel cannot open it (EIO), or not with verity",
        Human("if the file holds its data, remove the attribute; else delete the file");
    METACOPY_DANGLING = Problem "metacopy-dangling",
        "a file with attributes only, whose data the lower layers do not have",
        "reading it fails (EIO)",
        Human("give all lower layers, data-only ones too, or delete the file");
    ORIGIN_VALUE = Problem "origin-value",
        "an origin that is none",
        "the kernel warns, and the inode number changes",
        REMOVE_ATTRIBUTE;
    LINKS_VALUE = Problem "links-value",
        "a link count that is none",
        "the links of the upper file are counted, and those in lower layers are not",
        REMOVE_ATTRIBUTE;
    LINKS_LOW = Problem "links-low",
        "a link count below the number of names in the upper layer",
        "the file is given up while it has a name",
        Repair("counts the names of the upper layer", "counted anew");
    NUMBER_VALUE = Problem "number-value",
        "an inode number that is none",
        "the inode number is that of the upper file",
        REMOVE_ATTRIBUTE;
    IMPURE_VALUE = Problem "impure-value",
        "an impure mark that is not y",
        "the kernel lists wrong inode numbers",
        Repair("sets it to y", "set to y");
    PROTECTION_VALUE = Problem "protection-value",
        "flags of chattr that are none",
        "the kernel warns, and the file or directory is neither immutable nor append-only",
        REMOVE_ATTRIBUTE;
    OVERRIDE_VALUE = Problem "override-value",
        "an owner and mode that cannot be understood",
        "it cannot be used (EIO)",
        Human("correct it to UID:GID:MODE, or remove it to show what the file itself says");
    STAGE_LEFTOVER = Note "stage-leftover",
        "something that was being prepared when a daemon died",
        "nothing: the next mount removes it",
        REMOVE;
    INDEX_ORPHAN = Note "index-orphan",
        "an index entry of a file that has no name any more",
        "nothing: the next mount removes it",
        REMOVE;
    INDEX_FOREIGN = Note "index-foreign",
        "an index entry that is not named after a lower file of this machine",
        "plyfs skips it; the kernel removes it, or refuses the mount",
        Nothing("left to the kernel");
    INDEX_ORIGIN = Problem "index-origin",
        "an index entry whose file does not tell the same origin",
        "names of the lower file show the old content, or fail in the kernel (ESTALE)",
        Human("set overlay.origin to the bytes of the entry's name, or remove the entry");
    LINK_RECORD = Problem "link-record",
        "a record of deleted links that is no number",
        "deleted names of a lower file are counted as if they were there",
        REMOVE;
    LINK_RECORD_UNFINISHED = Note "link-record-unfinished",
        "a record of deleted links that was not finished",
        "nothing",
        REMOVE;
    NUMBER_RECORD = Note "number-record",
        "a record of an inode number that is no symbolic link",
        "nothing: it is skipped",
        Nothing("it is not of plyfs: move it elsewhere");
    NUMBER_RECORD_STALE = Note "number-record-stale",
        "a record of the inode number of a file that is gone",
        "nothing, unless another program makes a file there: that would show the number",
        REMOVE;
    VOLATILE = Problem "volatile",
        "the mark of a volatile mount that did not end",
        "mounts are refused unless they are volatile",
        Human("check the data of the layer, then remove it");
}
