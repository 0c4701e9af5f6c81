//! A process of its own, in namespaces of its own, for a test with cards.
//!
//! vpcd listens on every address and pcscd on one path, so each test gets a network namespace with nothing but loopback, a mount
//! namespace with an empty `/run`, and a process namespace that ends with it: nothing that the test starts can outlive it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Termination};
use std::sync::OnceLock;
use std::{env, fs, panic};

use crate::{support, token};

/// Set for a process that [`isolated`] started: the directory of the card programs.
const PROGRAMS: &str = "CLAVIGER_TESTKIT_CARDS";

/// How long a test may take. pcscd offers no way out of an operation that a card never answers, so such a test ends here.
const LIMIT_SECONDS: &str = "600";
/// Ends the program after it when the one before it ends, so that a test run that is interrupted leaves nothing.
const WITH_PARENT: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// Run in the namespaces, before the program.
const ENTER: &str = r#"ip link set lo up && mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/pcscd && exec "$@""#;

const NO_NAMESPACE: &str = "There can be no namespace for the virtual cards here. Run the tests as root, or let users make \
     namespaces (`sysctl -w kernel.unprivileged_userns_clone=1`); `unshare` is in the package util-linux, `ip` in iproute2.";

/// Runs the `#[test]` function that calls this again, alone, in a process and in namespaces of its own, and there runs `body`.
/// SoftHSM and kryoptic have their tokens to themselves too, as in [`crate::token::isolated`].
///
/// # Panics
/// If that process fails or is not done after ten minutes, with what it wrote; or if there can be no namespaces, with what to do.
pub fn isolated<F: FnOnce()>(body: F) {
    if programs().is_some() {
        return body();
    }
    let home = token::temporary("cards");
    let mut command = Command::new(WITH_PARENT[0]);
    command.args(&WITH_PARENT[1..]).args(["timeout", "--foreground", "--signal=KILL", LIMIT_SECONDS]).args(WITH_PARENT);
    enter(home.path(), &mut command);
    tokens(home.path(), &mut command);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| token::run_alone::<F>(&mut command)));
    if let Err(failure) = outcome {
        let text = failure.downcast_ref::<String>().map_or("", String::as_str);
        // The test harness says so first.
        assert!(text.contains("running 1 test"), "{NO_NAMESPACE}\n{text}");
        panic::resume_unwind(failure);
    }
}

/// The same for a program with a `main` of its own, such as a benchmark, without a limit: arguments, standard streams and exit code
/// are passed through.
pub fn isolated_main<T: Termination>(body: impl FnOnce() -> T) -> ExitCode {
    main(body, tokens)
}

/// The same without tokens: the program's own SoftHSM and kryoptic stay what they are.
pub(super) fn main<T: Termination>(body: impl FnOnce() -> T, prepare: impl FnOnce(&Path, &mut Command)) -> ExitCode {
    if programs().is_some() {
        return body().report();
    }
    let home = token::temporary("cards");
    let mut command = Command::new(WITH_PARENT[0]);
    command.args(&WITH_PARENT[1..]);
    enter(home.path(), &mut command);
    prepare(home.path(), &mut command);
    token::pass_through(&mut command)
}

/// The directory of the card programs, in a process that [`isolated`] started.
pub(super) fn programs() -> Option<PathBuf> {
    env::var_os(PROGRAMS).map(PathBuf::from)
}

/// Gives `command` tokens in `home`. kryoptic is built first: inside there is no network.
fn tokens(home: &Path, command: &mut Command) {
    token::kryoptic_module();
    command.envs(token::environment(home));
}

/// Makes `command`, which runs another one, run this program in namespaces, without arguments. The cards are built first: inside there
/// is no network.
fn enter(home: &Path, command: &mut Command) {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let programs = BUILT.get_or_init(|| support::build("cards", false));
    let temporary = home.join("tmp");
    fs::create_dir(&temporary).expect("create a temporary directory");
    command.args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--", "sh", "-c", ENTER, "sh"]).arg(env::current_exe().expect("a running program has a path"));
    // What the test leaves when it is killed goes with its home.
    command.env(PROGRAMS, programs).env("TMPDIR", temporary);
}
