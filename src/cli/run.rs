//! `plyfs run [OPTIONS] IMAGE [CMD...]`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::error::CliError;
use super::logging;
use super::store::StoreArgs;
use crate::archive::Shown;
use crate::container::{Changes, Container, ImageMount, Prepared};
use crate::mount::options::Options;
use crate::mount::request::MountRequest;
use crate::run::command::{Defaults, Wishes};
use crate::run::{self, Program, Request, RootSource, RunError, Volume};
use crate::store::Store;
use crate::store::seal::Seal;

/// Run a program of an image in a container
///
/// The container has users, mounts, processes, and a name of its own, and the network, the limits and the time of the host: no
/// network and no control group is set up. An ordinary user is root in it, and has the ids of /etc/subuid and /etc/subgid
/// besides. For root it is no wall against programs that mean harm.
///
/// What the program changes stays in the container's layer, which `plyfs ps --all` lists, unless --rm is given. The exit
/// status is that of the program, 128 and the number of the signal that ended it, 125 if there is no container, 126 if
/// the program cannot be executed, 127 if there is none.
#[derive(Args, Debug)]
#[command(override_usage = "plyfs run [OPTIONS] IMAGE [CMD [ARG...]]\n       \
                            plyfs run [OPTIONS] --rootfs DIR CMD [ARG...]")]
pub struct RunArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Let the program read standard input
    #[arg(short, long)]
    interactive: bool,

    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,

    /// Remove the container when the program has ended
    #[arg(long)]
    rm: bool,

    /// The name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// A file or directory of the host, to be seen at DST; may be repeated
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]")]
    volumes: Vec<OsString>,

    /// A variable of the environment, from the caller's if there is no value; may be repeated
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    environment: Vec<OsString>,

    /// Where the program is started
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,

    /// Who runs the program, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Run this instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<OsString>,

    /// Let the program change nothing but volumes
    #[arg(long)]
    read_only: bool,

    /// The name of the machine, as the program sees it
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,

    /// Refuse the image unless this is its seal (plyfs image seal), and verify all that is read of it
    #[arg(long, value_name = "HEX")]
    require_seal: Option<Seal>,

    /// Run in this directory, which is changed in place, instead of an image
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rm", "name", "require_seal"])]
    rootfs: Option<PathBuf>,

    /// The image, and what to run instead of its command
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

impl RunArgs {
    /// Runs the program; its exit status.
    pub fn run(mut self) -> Result<ExitCode, CliError> {
        logging::start(log::LevelFilter::Warn)?;
        let volumes = self.volumes.iter().map(|text| Volume::parse(text));
        let volumes = volumes.collect::<Result<Vec<_>, _>>().map_err(CliError::Usage)?;
        self.check()?;
        match self.rootfs.take() {
            Some(directory) => {
                let hostname = self.hostname.take().unwrap_or_else(|| "plyfs".into());
                let request = self.request(Defaults::default(), hostname, volumes)?;
                Ok(ExitCode::from(run::run(&request, RootSource::Directory(directory))?))
            }
            None => self.run_image(volumes),
        }
    }

    /// What the kernel, or nobody, would refuse when half of the work is done.
    fn check(&self) -> Result<(), CliError> {
        let nameless = |entry: &&OsString| matches!(entry.as_encoded_bytes(), [] | [b'=', ..]);
        if let Some(entry) = self.environment.iter().find(nameless) {
            let shown = Shown(entry.as_encoded_bytes());
            let line = format!("option --env: `{shown}`: the name of the variable is missing");
            return Err(CliError::Usage(line));
        }
        let unfit = |name: &&String| {
            !(1..=LONGEST_HOSTNAME).contains(&name.len())
                || name.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        match self.hostname.as_ref().filter(unfit) {
            Some(name) => Err(CliError::Usage(format!(
                "option --hostname: `{name}`: expected 1 to {LONGEST_HOSTNAME} bytes without spaces"
            ))),
            None => Ok(()),
        }
    }

    fn run_image(mut self, volumes: Vec<Volume>) -> Result<ExitCode, CliError> {
        let image = self.words.remove(0);
        let image = image.to_str().ok_or_else(|| {
            CliError::NotFound(format!("no image `{}`", Shown(image.as_encoded_bytes())))
        })?;
        let store = self.store.open()?;
        let root = store.root().to_owned();
        let found = store.find_image(image)?;
        let id = found.id();
        let defaults: Option<Defaults> =
            serde_json::from_value(found.config.config).map_err(|error| {
                let line = format!("image {image}: its configuration cannot be read: {error}");
                CliError::Failure(line)
            })?;
        let wanted = ImageMount {
            image: Some(image.to_owned()),
            changes: Changes::Container(self.name.take()),
            seal: self.require_seal,
            request: MountRequest {
                source: None,
                mountpoint: PathBuf::new(),
                options: Options::default(),
                given: Vec::new(),
                type_name: "fuse.plyfs",
                foreground: false,
                ends_with_caller: true,
                debug: false,
            },
        };
        let prepared = Prepared::new(store, wanted)?;
        let name = prepared.name().to_owned();
        if prepared.container().is_some_and(|container| container.record().config != id) {
            prepared.abandon();
            let line = format!("image {image}: it has just become another; run it again");
            return Err(CliError::Failure(line));
        }
        if !prepared.is_new() {
            prepared.abandon();
            return Err(CliError::Failure(format!(
                "container {name} exists already; choose another name, or remove it: plyfs rm {name}"
            )));
        }
        let hostname = self.hostname.take().unwrap_or_else(|| hostname(&name).to_owned());
        let rm = self.rm;
        let request = match self.request(defaults.unwrap_or_default(), hostname, volumes) {
            Ok(request) => request,
            Err(error) => {
                prepared.abandon();
                return Err(error);
            }
        };
        let ended = run::run(&request, RootSource::Container(Box::new(prepared)));
        if rm {
            let store = Store::open(&root)?;
            if let Some(container) = Container::named(&store, &name)? {
                container.remove(&store)?;
            }
        }
        Ok(ExitCode::from(ended?))
    }

    fn request(
        self,
        defaults: Defaults,
        hostname: String,
        volumes: Vec<Volume>,
    ) -> Result<Request, CliError> {
        let wishes = Wishes {
            entrypoint: self.entrypoint,
            command: self.words,
            environment: self.environment,
            working_directory: self.workdir,
            user: self.user,
            terminal: self.tty,
            hostname: hostname.clone(),
        };
        Ok(Request {
            program: Program::new(defaults, wishes)?,
            volumes,
            hostname,
            read_only: self.read_only,
            interactive: self.interactive,
            terminal: self.tty,
        })
    }
}

/// HOST_NAME_MAX of Linux, in bytes.
const LONGEST_HOSTNAME: usize = 64;

/// The name of a container, as far as it can be one of a machine.
fn hostname(name: &str) -> &str {
    &name[..name.len().min(LONGEST_HOSTNAME)]
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        CliError::Status(error.status, error.line)
    }
}
