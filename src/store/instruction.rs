//! Instructions of a Dockerfile that change an image's configuration, as `docker commit --change` takes them.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{Error, Result};
use crate::archive::Shown;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    word: Word,
    rest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Label,
    OnBuild,
    StopSignal,
    User,
    Volume,
    Workdir,
}

const WORDS: [(&str, Word); 10] = [
    ("CMD", Word::Cmd),
    ("ENTRYPOINT", Word::Entrypoint),
    ("ENV", Word::Env),
    ("EXPOSE", Word::Expose),
    ("LABEL", Word::Label),
    ("ONBUILD", Word::OnBuild),
    ("STOPSIGNAL", Word::StopSignal),
    ("USER", Word::User),
    ("VOLUME", Word::Volume),
    ("WORKDIR", Word::Workdir),
];

impl FromStr for Instruction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let known = WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
        let (_, word) = known.ok_or_else(|| {
            let all = WORDS.map(|(word, _)| word).join(", ");
            refused(text, &format!("it does not begin with one of {all}"))
        })?;
        let instruction = Self { word: *word, rest: rest.trim().to_owned() };
        // What is wrong with it shows when it is applied.
        instruction.apply(&mut Map::new(), &mut false)?;
        Ok(instruction)
    }
}

/// Applies `instructions` to the part `config` of a configuration, in their order.
///
/// # Errors
/// None for what [`Instruction::from_str`] has taken.
pub fn apply_all(instructions: &[Instruction], config: &mut Map<String, Value>) -> Result<()> {
    let mut has_command = false;
    instructions.iter().try_for_each(|one| one.apply(config, &mut has_command))
}

impl Instruction {
    /// `has_command` is whether an earlier one has set a command.
    fn apply(&self, config: &mut Map<String, Value>, has_command: &mut bool) -> Result<()> {
        let Self { word, rest } = self;
        if rest.is_empty() && !matches!(word, Word::Cmd | Word::Entrypoint) {
            return Err(self.refused("something must follow it"));
        }
        match word {
            Word::Cmd => {
                config.insert("Cmd".into(), command(rest));
                *has_command = true;
            }
            Word::Entrypoint => {
                config.insert("Entrypoint".into(), command(rest));
                // The former command was meant for the former program (Dockerfile reference, "ENTRYPOINT").
                if !*has_command {
                    config.remove("Cmd");
                }
            }
            Word::Env => {
                let mut variables = strings(config.get("Env"));
                for (name, value) in self.pairs()? {
                    let prefix = format!("{name}=");
                    let new = format!("{prefix}{value}");
                    match variables.iter_mut().find(|old| old.starts_with(&prefix)) {
                        Some(old) => *old = new,
                        None => variables.push(new),
                    }
                }
                config.insert("Env".into(), json!(variables));
            }
            Word::Label => {
                for (name, value) in self.pairs()? {
                    put(config, "Labels", name, value.into());
                }
            }
            Word::Expose => {
                for port in rest.split_whitespace() {
                    let port = self.port(port)?;
                    put(config, "ExposedPorts", port, json!({}));
                }
            }
            Word::Volume => {
                let places = match serde_json::from_str::<Vec<String>>(rest) {
                    Ok(list) => list,
                    Err(_) => self.words()?,
                };
                for place in places {
                    put(config, "Volumes", place, json!({}));
                }
            }
            Word::OnBuild => {
                let mut steps = strings(config.get("OnBuild"));
                steps.push(rest.clone());
                config.insert("OnBuild".into(), json!(steps));
            }
            Word::StopSignal => {
                config.insert("StopSignal".into(), json!(rest));
            }
            Word::User => {
                config.insert("User".into(), json!(rest));
            }
            Word::Workdir => {
                let dir = self.words()?.join(" ");
                let old = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let dir = if dir.starts_with('/') { dir } else { format!("{old}/{dir}") };
                config.insert("WorkingDir".into(), json!(cleaned(&dir)));
            }
        }
        Ok(())
    }

    /// `NAME=VALUE ...`, or `NAME VALUE` to the end of the line.
    fn pairs(&self) -> Result<Vec<(String, String)>> {
        let first = self.rest.split_whitespace().next().unwrap_or_default();
        if !first.contains('=') {
            let (name, value) =
                self.rest.split_once(char::is_whitespace).ok_or_else(|| self.no_pair())?;
            return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
        }
        let pair = |word: String| {
            let (name, value) = word.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        };
        let words = self.words()?.into_iter();
        words.map(|word| pair(word).ok_or_else(|| self.no_pair())).collect()
    }

    fn no_pair(&self) -> Error {
        self.refused("NAME=VALUE is needed")
    }

    /// The words, without their quotes and backslashes.
    fn words(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut characters = self.rest.chars();
        while let Some(c) = characters.next() {
            match (c, quote) {
                ('\\', None | Some('"')) => {
                    word.get_or_insert_default().extend(characters.next());
                }
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (c, None) if c.is_whitespace() => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_some() {
            return Err(self.refused("a quote is not closed"));
        }
        words.extend(word);
        Ok(words)
    }

    /// `PORT` or `PORT-PORT`, and `/tcp`, `/udp` or `/sctp`.
    fn port(&self, text: &str) -> Result<String> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        let good = ports.split('-').count() <= 2
            && ports.split('-').all(|port| port.parse::<u16>().is_ok())
            && ["tcp", "udp", "sctp"].contains(&protocol.as_str());
        if !good {
            return Err(self.refused("PORT or PORT/PROTOCOL is needed"));
        }
        Ok(format!("{ports}/{protocol}"))
    }

    fn refused(&self, why: &str) -> Error {
        let (word, _) = WORDS.iter().find(|(_, word)| *word == self.word).unwrap_or(&WORDS[0]);
        refused(format!("{word} {}", self.rest).trim_end(), why)
    }
}

fn refused(text: &str, why: &str) -> Error {
    Error::failure(format!("--change `{}`: {why}", Shown(text.as_bytes())))
}

/// A list of words as JSON, or a line for the shell.
fn command(text: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => json!(words),
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => json!(["/bin/sh", "-c", text]),
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|one| one.as_str().map(ToOwned::to_owned)).collect()
}

/// Puts `key` into the object in `config` that is called `name`; into a new one where there is none.
fn put(config: &mut Map<String, Value>, name: &str, key: String, value: Value) {
    let mut object = match config.remove(name) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    object.insert(key, value);
    config.insert(name.to_owned(), Value::Object(object));
}

/// An absolute path without `.`, `..` and doubled slashes.
fn cleaned(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(base: Value, lines: &[&str]) -> Value {
        let all: Vec<Instruction> = lines.iter().map(|line| line.parse().unwrap()).collect();
        let Value::Object(mut config) = base else { panic!() };
        apply_all(&all, &mut config).unwrap();
        Value::Object(config)
    }

    #[test]
    fn every_instruction_does_what_a_dockerfile_says() {
        let rows = [
            (json!({}), r#"CMD ["a", "b c"]"#, json!({ "Cmd": ["a", "b c"] })),
            (json!({}), "cmd a b", json!({ "Cmd": ["/bin/sh", "-c", "a b"] })),
            (json!({ "Cmd": ["x"] }), r#"ENTRYPOINT ["e"]"#, json!({ "Entrypoint": ["e"] })),
            (
                json!({ "Env": ["A=1", "B=2"] }),
                r#"ENV A=3 C="x y" D=\ z"#,
                json!({ "Env": ["A=3", "B=2", "C=x y", "D= z"] }),
            ),
            (json!({}), "ENV A x y", json!({ "Env": ["A=x y"] })),
            (
                json!({ "Labels": { "a": "1" } }),
                "LABEL a=2 'b c'=d",
                json!({ "Labels": { "a": "2", "b c": "d" } }),
            ),
            (
                json!({ "ExposedPorts": null }),
                "EXPOSE 80 53/UDP",
                json!({ "ExposedPorts": { "53/udp": {}, "80/tcp": {} } }),
            ),
            (json!({}), "USER 5:6", json!({ "User": "5:6" })),
            (json!({}), r#"VOLUME ["/a"]"#, json!({ "Volumes": { "/a": {} } })),
            (json!({}), "VOLUME /a /b", json!({ "Volumes": { "/a": {}, "/b": {} } })),
            (json!({ "WorkingDir": "/a" }), "WORKDIR b/../c", json!({ "WorkingDir": "/a/c" })),
            (json!({}), "WORKDIR /x", json!({ "WorkingDir": "/x" })),
            (json!({}), "STOPSIGNAL SIGINT", json!({ "StopSignal": "SIGINT" })),
            (json!({ "OnBuild": ["a"] }), "ONBUILD RUN b", json!({ "OnBuild": ["a", "RUN b"] })),
        ];
        for (base, line, expected) in rows {
            assert_eq!(applied(base, &[line]), expected, "{line}");
        }
    }

    #[test]
    fn a_command_of_the_same_commit_stays_with_an_entrypoint() {
        let lines = [r#"CMD ["c"]"#, r#"ENTRYPOINT ["e"]"#];
        assert_eq!(applied(json!({}), &lines), json!({ "Cmd": ["c"], "Entrypoint": ["e"] }));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (line, why) in [
            ("RUN x", "--change `RUN x`: it does not begin with one of CMD, "),
            ("ENV", "--change `ENV`: something must follow it"),
            ("ENV A", "--change `ENV A`: NAME=VALUE is needed"),
            ("ENV A=1 B", "--change `ENV A=1 B`: NAME=VALUE is needed"),
            ("LABEL a=\"b", "--change `LABEL a=\"b`: a quote is not closed"),
            ("EXPOSE x", "--change `EXPOSE x`: PORT or PORT/PROTOCOL is needed"),
            ("EXPOSE 1-2-3", "--change `EXPOSE 1-2-3`: PORT or PORT/PROTOCOL is needed"),
            ("EXPOSE 80/x", "--change `EXPOSE 80/x`: PORT or PORT/PROTOCOL is needed"),
        ] {
            let error = line.parse::<Instruction>().unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
