//! `plyfs generate completions SHELL`: commands and flags are completed by what clap writes, the list of mount options
//! behind `-o`, which clap cannot describe, by a part of our own for each shell.

use clap::{Command, ValueEnum};
use clap_complete::aot::{Bash, Fish, Generator, Zsh, generate};

use crate::mount::options::table::{self, OptionSpec};

/// A shell that completes words.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    /// share/bash-completion/completions/plyfs
    Bash,
    /// share/zsh/site-functions/_plyfs
    Zsh,
    /// share/fish/vendor_completions.d/plyfs.fish
    Fish,
}

/// What the shell reads to complete the words of `command`.
pub(super) fn script(shell: Shell, command: &Command) -> String {
    match shell {
        Shell::Bash => {
            let own = include_str!("completions/options.bash");
            let spellings: Vec<_> = table::all().flat_map(OptionSpec::spellings).collect();
            let own = own
                .replace("COMMANDS", &other_commands(command, "|"))
                .replace("DIRECTORIES", &directories("=*|"))
                .replace("SPELLINGS", &spellings.join("\n"));
            by_clap(Bash, command) + &own
        }
        Shell::Zsh => {
            let values: Vec<_> = table::all().filter_map(zsh_value).collect();
            let own =
                include_str!("completions/options.zsh").replace("VALUES", &values.join(" \\\n"));
            let whole =
                by_clap(Zsh, command).replace(":OPTIONS:_default", ":OPTIONS:_plyfs_options");
            // The last lines call what stands above them.
            whole.replacen("\n_plyfs() {", &format!("\n{own}\n_plyfs() {{"), 1)
        }
        Shell::Fish => {
            let lines: Vec<_> = table::all().flat_map(fish_lines).collect();
            let own = include_str!("completions/options.fish")
                .replace("DIRECTORIES", &directories("|"))
                .replace("COMMANDS", &other_commands(command, " "))
                .replace("LINES", &lines.join(" \\\n"));
            by_clap(Fish, command) + &own
        }
    }
}

fn by_clap(generator: impl Generator, command: &Command) -> String {
    let mut script = Vec::new();
    let mut visible = Command::new("plyfs").version("").disable_help_subcommand(true);
    visible = visible.args(command.get_arguments()).subcommands(shown(command));
    generate(generator, &mut visible, "plyfs", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

/// The commands that take no mount options, with this between them.
fn other_commands(command: &Command, between: &str) -> String {
    let names = shown(command).map(Command::get_name).filter(|name| *name != "mount");
    names.collect::<Vec<_>>().join(between)
}

/// The options that take directories, with this between them.
fn directories(between: &str) -> String {
    let names = table::all().filter(|spec| spec.takes_directories()).map(|spec| spec.name);
    names.collect::<Vec<_>>().join(between)
}

/// One argument of `_values`.
fn zsh_value(spec: &OptionSpec) -> Option<String> {
    let spellings = spec.spellings();
    let first = spellings.first()?;
    let help = spec.help.replace(['[', ']', '\'', '\\', '`'], "").replace(':', "\\:");
    let values: Vec<_> = spellings.iter().filter_map(|spelling| spelling.split_once('=')).collect();
    let action = match values[..] {
        [] => String::new(),
        _ if spec.name == "lowerdir" => ":layers:_dir_list".into(),
        _ if spec.takes_directories() => ":directory:_files -/".into(),
        [(_, "")] => ":value:".into(),
        _ => {
            let words: Vec<_> = values.iter().map(|(_, word)| *word).collect();
            format!(":value:({})", words.join(" "))
        }
    };
    let name = first.split('=').next().unwrap_or_default();
    Some(format!("        '{name}[{help}]{action}'"))
}

/// Lines of a word, a tab and a description.
fn fish_lines(spec: &OptionSpec) -> Vec<String> {
    let help = spec.help.replace(['\'', '\\', '`'], "");
    spec.spellings().into_iter().map(|spelling| format!("        '{spelling}\t{help}'")).collect()
}
