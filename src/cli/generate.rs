//! `plyfs generate`: what derives from the command line's definition: parts of the documentation, completions.

use std::io::{self, Write};

use clap::{Args, Command, CommandFactory, Subcommand};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::error::CliError;
use super::{Cli, completions, option_docs};

/// Write documentation, or completions for a shell, to standard output
#[derive(Args, Debug)]
pub struct GenerateArgs {
    #[command(subcommand)]
    document: Document,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Document {
    /// The manual page (man/plyfs.1)
    Man,
    /// The tables of docs/options.md
    Options,
    /// The table of docs/check.md
    Findings,
    /// What completes the words of a command line
    Completions {
        /// The shell that reads it
        shell: completions::Shell,
    },
}

impl GenerateArgs {
    /// Writes the document.
    pub fn run(self) -> Result<(), CliError> {
        let text = match self.document {
            Document::Man => man()?,
            Document::Options => option_docs::markdown().into_bytes(),
            Document::Findings => super::check::markdown().into_bytes(),
            Document::Completions { shell } => {
                completions::script(shell, &Cli::command()).into_bytes()
            }
        };
        Ok(io::stdout().write_all(&text)?)
    }
}

fn man() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // No date, so that the page depends on the code only; an empty argument would vanish.
    let man = Man::new(Cli::command()).title("PLYFS").date(" ").manual("User Commands");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis().to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    option_docs::roff().to_writer(&mut page)?;
    commands().to_writer(&mut page)?;
    rest().to_writer(&mut page)?;
    Ok(page)
}

fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([
        bold("plyfs"),
        roman(" ["),
        italic("SOURCE"),
        roman("] "),
        italic("MOUNTPOINT"),
        bold(" -o lowerdir="),
        italic("DIR"),
        roman("[:"),
        italic("DIR"),
        roman("...][,"),
        bold("upperdir="),
        italic("DIR"),
        bold(",workdir="),
        italic("DIR"),
        roman("][,...]"),
    ]);
    roff.control("br", []);
    roff.text([bold("plyfs umount"), roman(" [-l] "), italic("MOUNTPOINT")]);
    roff.control("br", []);
    roff.text([
        bold("plyfs stats"),
        roman(" [--json] [--watch["),
        italic("=SECONDS"),
        roman("]] "),
        italic("MOUNTPOINT"),
    ]);
    roff.control("br", []);
    roff.text([bold("plyfs upgrade"), roman(" "), italic("MOUNTPOINT")]);
    roff.control("br", []);
    roff.text([bold("plyfs check"), roman(" [--repair] [--json] [--work "), italic("DIR")]);
    roff.text([
        roman("] [--lower "),
        italic("DIR"),
        roman("[:"),
        italic("DIR"),
        roman("...]] "),
        italic("UPPER"),
    ]);
    roff.control("br", []);
    roff.text([bold("plyfs convert --to"), italic(" FORM"), roman(" [--work "), italic("DIR")]);
    roff.text([roman("] "), italic("LAYER")]);
    for command in ["image", "store"] {
        roff.control("br", []);
        let name = format!("plyfs {command}");
        roff.text([bold(name), italic(" COMMAND"), roman(" [--store "), italic("DIR"), roman("]")]);
    }
    roff.control("br", []);
    roff.text([bold("mount -t fuse.plyfs"), italic(" SOURCE MOUNTPOINT "), bold("-o ...")]);
    roff
}

fn commands() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    let cli = Cli::command();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        describe(command, command.get_name(), &mut roff);
        if command.get_name() != "mount" {
            roff.control("RS", []);
            options(command, &mut roff);
            roff.control("RE", []);
        }
        for below in command.get_subcommands() {
            let name = format!("{} {}{}", command.get_name(), below.get_name(), arguments(below));
            describe(below, &name, &mut roff);
            roff.control("RS", []);
            options(below, &mut roff);
            roff.control("RE", []);
        }
    }
    roff
}

fn describe(command: &Command, name: &str, roff: &mut Roff) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let sentences: Vec<&str> = about.split("\n\n").map(|s| s.trim_end_matches('.')).collect();
    roff.text([roman(format!("{}.", sentences.join(". ")))]);
}

/// What a command takes besides options.
fn arguments(command: &Command) -> String {
    let argument = |argument: &clap::Arg| {
        let names = argument.get_value_names().unwrap_or_default();
        let name = names.first().map(ToString::to_string).unwrap_or_default();
        let more =
            if argument.get_action().takes_values() && is_list(argument) { "..." } else { "" };
        match argument.is_required_set() {
            true => format!(" {name}{more}"),
            false => format!(" [{name}{more}]"),
        }
    };
    command.get_positionals().map(argument).collect()
}

fn is_list(argument: &clap::Arg) -> bool {
    matches!(argument.get_action(), clap::ArgAction::Append)
}

/// The options of one command; those of `mount` are those of the program.
fn options(command: &Command, roff: &mut Roff) {
    for option in command.get_opts().filter(|option| option.get_long() != Some("help")) {
        let Some(help) = option.get_help() else { continue };
        let long = option.get_long().map(|name| format!("--{name}"));
        let short = option.get_short().map(|letter| format!("-{letter}"));
        let flags = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
        roff.control("TP", []);
        let values = match option.get_action().takes_values() {
            true => option.get_value_names().unwrap_or_default(),
            false => &[],
        };
        let optional = option.get_num_args().is_some_and(|count| count.min_values() == 0);
        let value = |name| if optional { format!("[={name}]") } else { format!(" {name}") };
        let values: Vec<_> = values.iter().map(value).collect();
        roff.text([bold(flags), italic(values.concat())]);
        let words = option.get_possible_values();
        let words: Vec<_> = words.iter().map(|word| word.get_name()).collect();
        let choice = match option.get_action().takes_values() && !words.is_empty() {
            true => format!(" ({})", words.join(", ")),
            false => String::new(),
        };
        roff.text([roman(format!("{help}{choice}."))]);
    }
}

/// Sections of the manual page: each a title, and terms with what they mean.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    (
        "ENVIRONMENT",
        &[
            (
                "PLYFS_LOG, RUST_LOG",
                "What to log, such as info or plyfs::overlay=debug; warn otherwise.",
            ),
            ("PLYFS_STORE", "The store; otherwise $XDG_DATA_HOME/plyfs or ~/.local/share/plyfs."),
            (
                "SOURCE_DATE_EPOCH",
                "The time, in seconds since 1970, that images made by image import say they are of.",
            ),
            (
                "PLYFS_LOG_FILE",
                "The file for the log lines of a mount in the background, instead of syslog.",
            ),
            (
                "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT",
                "Write deletions as .wh.NAME files even where the kernel's form is possible.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            ("SIGTERM, SIGINT, SIGHUP", "Unmount, also when the mount is in use, and end."),
            ("SIGUSR1", "Write what plyfs stats shows into the log, as one line of JSON."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Done; a mount answers by then."),
            ("1", "It did not work; one line on standard error says why."),
            ("2", "The command line is wrong; one line on standard error says where."),
            ("3", "Of image commands: there is no such image or file."),
            ("4", "Of image and store commands: something is not what its digest says."),
            (
                "0, 1, 4, 8, 16",
                "Of plyfs check, as of fsck(8): no problems, all repaired, problems left, not \
                 checked to the end, wrong command line.",
            ),
        ],
    ),
    (
        "EXAMPLES",
        &[
            ("plyfs -o lowerdir=/app:/base,upperdir=/up,workdir=/work /mnt", "A writable tree."),
            ("plyfs -o lowerdir=/app:/base /mnt", "A read-only tree."),
            (
                "none /mnt fuse.plyfs lowerdir=/app:/base,upperdir=/up,workdir=/work 0 0",
                "The writable tree as a line of /etc/fstab.",
            ),
        ],
    ),
];

fn rest() -> Roff {
    let mut roff = Roff::new();
    for (title, entries) in SECTIONS {
        roff.control("SH", [title]);
        for (term, text) in entries {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*text)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("mount"), roman("(8), "), bold("fusermount3"), roman("(1), ")]);
    roff.text([bold("fuse"), roman("(4), "), bold("user_namespaces"), roman("(7)")]);
    roff
}
