//! A process of its own, in namespaces of its own, for a test with cards.
//!
//! vpcd listens on every address and pcscd on one path, so each test gets a network namespace with nothing but loopback, a mount
//! namespace with an empty `/run`, and a process namespace that ends with it: nothing that the test starts can outlive it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, panic};

use crate::{support, token};

/// Set for a process that [`isolated`] started: the directory of the card programs.
const PROGRAMS: &str = "CLAVIGER_TESTKIT_CARDS";

/// How long a test may take. pcscd offers no way out of an operation that a card never answers, so such a test ends here.
const LIMIT_SECONDS: &str = "600";

/// Run in the namespaces, before the program.
const ENTER: &str =
    r#"ip link set lo up && mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/pcscd && echo entered && exec "$@""#;
/// What [`ENTER`] says when it got so far.
const ENTERED: &str = "entered";

/// Runs the `#[test]` function that calls this again, alone, in a process and in namespaces of its own, and there runs `body`.
/// SoftHSM and kryoptic have their tokens to themselves too, as in [`crate::token::isolated`].
///
/// # Panics
/// If that process fails, with what it wrote; or if there can be no namespaces, with what to do.
pub fn isolated<F: FnOnce()>(body: F) {
    if programs().is_some() {
        return body();
    }
    let home = token::temporary("cards");
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", LIMIT_SECONDS]);
    enter(home.path(), &mut command);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| token::run_alone::<F>(&mut command)));
    if let Err(failure) = outcome {
        let text = failure.downcast_ref::<String>().map_or("", String::as_str);
        assert!(text.lines().any(|line| line == ENTERED), "{}\n{text}", NO_NAMESPACE);
        panic::resume_unwind(failure);
    }
}

const NO_NAMESPACE: &str = "There can be no namespace for the virtual cards here. Run the tests as root, or let users make \
     namespaces (`sysctl -w kernel.unprivileged_userns_clone=1`); `unshare` is in the package util-linux, `ip` in iproute2.";

/// The same for a program with a `main` of its own, such as a benchmark: arguments, standard streams and exit code are passed through.
/// The first line on standard output is `entered`.
pub fn isolated_main(body: impl FnOnce()) -> ExitCode {
    if programs().is_some() {
        body();
        return ExitCode::SUCCESS;
    }
    let home = token::temporary("cards");
    let mut command = Command::new("env");
    enter(home.path(), &mut command);
    token::pass_through(&mut command)
}

/// The directory of the card programs, in a process that [`isolated`] started.
pub(super) fn programs() -> Option<PathBuf> {
    env::var_os(PROGRAMS).map(PathBuf::from)
}

/// Makes `command`, which runs another one, run this program in namespaces, without arguments. What it may need is built first:
/// inside there is no network.
fn enter(home: &Path, command: &mut Command) {
    let programs = support::build("cards", false);
    token::kryoptic_module();
    let temporary = home.join("tmp");
    fs::create_dir(&temporary).expect("create a temporary directory");
    command.arg("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        "sh",
        "-c",
        ENTER,
        "sh",
    ]);
    command.arg(env::current_exe().expect("a running program has a path"));
    command.envs(token::environment(home)).env(PROGRAMS, programs);
    // What the test leaves when it is killed goes with its home.
    command.env("TMPDIR", temporary);
}
