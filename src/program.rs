//! What the programs of the house share: the terminal, questions for PINs, and closing the process to others.
//!
//! Not part of the library's promises to other programs.

mod pins;
mod terminal;

pub use pins::Pins;
pub use terminal::{
    COLUMNS, LogWriter, Terminal, Tint, interrupts_are_handled, one_line, prompts_are_over, shown, wrapped,
};

use crate::error::{Error, ErrorKind, Result};
use crate::store::default_dir;
use clap::Command;
use clap_complete::Shell;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::path::{Path, PathBuf};

/// No core dumps, no debugger or `/proc/PID/mem` of the same user, no file that others can read, and as many open files as are allowed.
///
/// # Errors
/// [`ErrorKind::Internal`] when a sandbox forbids one of the calls.
pub fn harden() -> Result<()> {
    let failed = |call: &str, error: rustix::io::Errno| {
        Error::new(
            ErrorKind::Internal,
            format!("This process could not be closed to others: {call}: {error}."),
            "Run it outside the sandbox that forbids this call.",
        )
        .because(error)
    };
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(|error| failed("setrlimit", error))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("prctl", error))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // Connections are files, and the usual soft limit of 1024 is for programs that use select(2).
    let files = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(Resource::Nofile, all).map_err(|error| failed("setrlimit", error))?;
    Ok(())
}

/// The store's directory: the one named, or the usual one.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] when none is named and the environment has none.
pub fn store_dir(named: Option<&Path>) -> Result<PathBuf> {
    named.map(Path::to_owned).or_else(default_dir).ok_or_else(|| {
        Error::new(
            ErrorKind::ConfigInvalid,
            "There is no place for the store: neither XDG_DATA_HOME nor HOME names an absolute path.",
            "Name the directory with `--store DIR`.",
        )
    })
}

/// Prints the completion script of a shell.
///
/// # Errors
/// Those of [`Terminal::data`].
pub fn completions(mut command: Command, shell: Shell, terminal: &Terminal) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    terminal.data(&script)
}

/// Prints the manual page, or writes one for each command into `dir`.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn man(command: Command, dir: Option<&Path>, terminal: &Terminal) -> Result<()> {
    let failed = |what: String, error: std::io::Error| {
        Error::new(
            ErrorKind::Io,
            format!("{what}: {error}."),
            "Check the path, its permissions and the room on its disk.",
        )
        .because(error)
    };
    match dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .map_err(|error| failed("Could not render the manual page".into(), error))?;
            terminal.data(&page)
        }
        Some(dir) => {
            clap_mangen::generate_to(command, dir)
                .map_err(|error| failed(format!("Could not write manual pages into {}", dir.display()), error))?;
            terminal.note(&format!("Wrote the manual pages into {}.", dir.display()));
            Ok(())
        }
    }
}
