//! What is run in a container: what the image says, changed by what the caller says (OCI image specification, "Image
//! Configuration"; docker-run(1)).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::Deserialize;

use super::error::RunError;

/// Where programs are looked for if nobody says where.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image says about its program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Defaults {
    /// `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// The program and its first arguments.
    pub entrypoint: Option<Words>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Option<Words>,
    /// Where it is started.
    pub working_dir: Option<String>,
    /// Who runs it.
    pub user: Option<String>,
}

/// Words, which images of long ago have as one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// One.
    One(String),
    /// Any number.
    Many(Vec<String>),
}

impl Words {
    fn into_words(self) -> Vec<OsString> {
        match self {
            Self::One(word) => vec![word.into()],
            Self::Many(words) => words.into_iter().map(OsString::from).collect(),
        }
    }
}

/// What the caller says; nothing leaves it to the image.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Instead of the image's entrypoint and command; empty for none.
    pub entrypoint: Option<OsString>,
    /// Instead of the image's command.
    pub command: Vec<OsString>,
    /// `NAME=VALUE`, or `NAME` for that of the caller.
    pub environment: Vec<OsString>,
    /// Instead of the image's working directory.
    pub working_directory: Option<OsString>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// Whether there is a terminal.
    pub terminal: bool,
    /// The name of the machine, which programs are told.
    pub hostname: String,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name or path, and its arguments; at least one.
    pub words: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it is started.
    pub working_directory: OsString,
    /// Who runs it, as `user.rs` reads it.
    pub user: String,
}

impl Program {
    /// What is to be run.
    ///
    /// # Errors
    /// If nothing is, or something has a zero byte in it.
    pub fn new(image: Defaults, wishes: Wishes) -> Result<Self, RunError> {
        let environment = environment(image.env.unwrap_or_default(), &wishes);
        let command = image.cmd.map(Words::into_words).unwrap_or_default();
        let words = match wishes.entrypoint {
            Some(entrypoint) => {
                let entrypoint = Some(entrypoint).filter(|word| !word.is_empty());
                entrypoint.into_iter().chain(wishes.command).collect()
            }
            None => {
                let mut words = image.entrypoint.map(Words::into_words).unwrap_or_default();
                let chosen = !wishes.command.is_empty();
                words.extend(if chosen { wishes.command } else { command });
                words
            }
        };
        if words.first().is_none_or(|word| word.is_empty()) {
            return Err(RunError::failed("the image has no command; name a program to run"));
        }
        let directory = image.working_dir.map(OsString::from);
        let directory = wishes.working_directory.or(directory).filter(|path| !path.is_empty());
        let program = Self {
            words,
            environment,
            working_directory: directory.unwrap_or_else(|| "/".into()),
            user: wishes.user.or(image.user).unwrap_or_default(),
        };
        program.refuse_zero_bytes()?;
        Ok(program)
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
    }

    fn refuse_zero_bytes(&self) -> Result<(), RunError> {
        let has_one = |text: &OsStr| text.as_bytes().contains(&0);
        let refused = |what: &str| Err(RunError::failed(format!("{what}: a zero byte is in it")));
        if self.words.iter().any(|word| has_one(word)) {
            return refused("the command");
        }
        if self.environment.iter().any(|(name, value)| has_one(name) || has_one(value)) {
            return refused("the environment");
        }
        if has_one(&self.working_directory) {
            return refused("the working directory");
        }
        Ok(())
    }
}

/// In docker's order: what every container has, what the image says, what the caller says. The last word counts.
fn environment(image: Vec<String>, wishes: &Wishes) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = vec![("PATH".into(), DEFAULT_PATH.into())];
    let mut set =
        |name: &OsStr, value: &OsStr| match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_owned(),
            None => variables.push((name.to_owned(), value.to_owned())),
        };
    set(OsStr::new("HOSTNAME"), OsStr::new(&wishes.hostname));
    if wishes.terminal {
        set(OsStr::new("TERM"), OsStr::new("xterm"));
    }
    for entry in image.iter().map(OsStr::new).chain(wishes.environment.iter().map(AsRef::as_ref)) {
        let bytes = entry.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            // A variable without a name cannot be looked up.
            Some(0) => {}
            Some(at) => set(OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])),
            None if bytes.contains(&0) || bytes.is_empty() => set(entry, OsStr::new("")),
            None => {
                if let Some(value) = std::env::var_os(entry) {
                    set(entry, &value);
                }
            }
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(json: &str) -> Defaults {
        serde_json::from_str(json).unwrap()
    }

    fn words(image: &str, entrypoint: Option<&str>, command: &[&str]) -> String {
        let wishes = Wishes {
            entrypoint: entrypoint.map(Into::into),
            command: command.iter().map(Into::into).collect(),
            ..Wishes::default()
        };
        match Program::new(defaults(image), wishes) {
            Ok(program) => program.words.join(OsStr::new(" ")).into_string().unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn entrypoint_and_command_go_together_as_docker_has_it() {
        let both = r#"{"Entrypoint":["/entry","-x"],"Cmd":["a","b"]}"#;
        assert_eq!(words(both, None, &[]), "/entry -x a b");
        assert_eq!(words(both, None, &["c"]), "/entry -x c");
        assert_eq!(words(both, Some("sh"), &[]), "sh");
        assert_eq!(words(both, Some("sh"), &["-c", "d"]), "sh -c d");
        assert_eq!(words(both, Some(""), &["c"]), "c");
        assert_eq!(words(r#"{"Cmd":"/bin/sh","Entrypoint":null}"#, None, &[]), "/bin/sh");
        assert_eq!(words("{}", None, &[]), "the image has no command; name a program to run");
        assert_eq!(words(both, Some(""), &[]), words("{}", None, &[]));
    }

    #[test]
    fn the_last_word_about_a_variable_counts() {
        let image = defaults(r#"{"Env":["A=1","B=2","PATH=/bin","=x","C"]}"#);
        let wishes = Wishes {
            environment: ["B=3=4", "D=", "PLYFS_NOT_SET"].map(Into::into).into(),
            command: vec!["x".into()],
            hostname: "h".into(),
            ..Wishes::default()
        };
        let program = Program::new(image, wishes).unwrap();
        let value = |name: &str| program.variable(name).and_then(OsStr::to_str);
        assert_eq!((value("A"), value("B"), value("D")), (Some("1"), Some("3=4"), Some("")));
        assert_eq!((value("PATH"), value("HOSTNAME")), (Some("/bin"), Some("h")));
        assert_eq!((value("TERM"), value(""), value("PLYFS_NOT_SET")), (None, None, None));
    }

    #[test]
    fn zero_bytes_are_refused() {
        for image in [
            r#"{"Env":["A=\u0000"],"Cmd":["x"]}"#,
            r#"{"Env":["A\u0000"],"Cmd":["x"]}"#,
            r#"{"Cmd":["x\u0000"]}"#,
            r#"{"Cmd":["x"],"WorkingDir":"/\u0000"}"#,
        ] {
            let line = words(image, None, &[]);
            assert!(line.ends_with(": a zero byte is in it"), "{line}");
        }
    }
}
