//! Tokens to test against: SoftHSM and kryoptic, each with its tokens in a temporary directory.
//!
//! Both modules read where their tokens are from an environment variable, at `C_Initialize`. Setting a variable in a process
//! that has threads is unsound, and every test process has threads; so nothing here sets one. There are two ways to use a module:
//!
//! - **From another process** (a daemon, a command line): make the token with [`SoftHsm::new`] and [`SoftHsm::init_token`] and start
//!   the program with [`SoftHsm::env`] in its environment.
//! - **In this process**: wrap the test in [`isolated`], which runs it again in a process of its own whose environment was set from
//!   the start. A test then has its modules to itself: whatever it does to them reaches no other test.
//!
//! Initialize all tokens before anything in the process loads the module: modules look for tokens once.

// The kit fails as the tests do that it serves: by a panic.
#![allow(clippy::expect_used)]

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs};

use tempfile::TempDir;

use crate::support::{self, shown};

/// Set for a process that [`isolated`] started: the directory of its tokens.
const HOME: &str = "CLAVIGER_TESTKIT_TOKENS";
const SOFTHSM_CONF: &str = "SOFTHSM2_CONF";
const KRYOPTIC_CONF: &str = "KRYOPTIC_CONF";

/// Where Debian's `softhsm2` package puts the module.
const SOFTHSM_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The SO PIN of every token that is made here, where no test cares.
pub const SO_PIN: &str = "87654321";
/// The user PIN of every token that is made here, where no test cares.
pub const PIN: &str = "271828";

/// Runs the `#[test]` function that calls this again, alone, in a process of its own whose tokens are in a fresh directory, and
/// there runs `body`. Panics if that process fails, with what it wrote.
///
/// Call it as the whole body of the test: `isolated(|| { … })`. The test is found by the closure's type name.
pub fn isolated<F: FnOnce()>(body: F) {
    if env::var_os(HOME).is_some() {
        let before = threads();
        body();
        // A token's thread closes it a moment after its last handle is gone, and a module that is unloaded with the process meanwhile crashes it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while threads() > before && Instant::now() < deadline {
            #[allow(clippy::disallowed_methods, reason = "a thread's end in a module offers nothing to wait on")]
            std::thread::sleep(Duration::from_millis(10));
        }
        return;
    }
    let home = temporary("tokens");
    run_alone::<F>(&mut this_program(home.path()));
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Runs the test whose body is `F` by `command`, a test program without arguments. Panics if it fails.
pub(crate) fn run_alone<F>(command: &mut Command) {
    let name = test_name(std::any::type_name::<F>());
    command.args([name.as_str(), "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    let output = support::output(command.stdin(Stdio::null()));
    let text = shown(&output);
    assert!(output.status.success(), "{name}, run alone, failed: {}\n{text}", output.status);
    assert!(text.contains("1 passed"), "no test is called {name}\n{text}");
}

/// The same for a program with a `main` of its own, such as a benchmark: arguments, standard streams and exit code are passed through.
pub fn isolated_main(body: impl FnOnce()) -> ExitCode {
    if env::var_os(HOME).is_some() {
        body();
        return ExitCode::SUCCESS;
    }
    let home = temporary("tokens");
    pass_through(&mut this_program(home.path()))
}

/// Runs `command` with this program's arguments, and gives its exit code.
pub(crate) fn pass_through(command: &mut Command) -> ExitCode {
    match command.args(env::args_os().skip(1)).status().map(|status| status.code()) {
        Ok(Some(code)) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        _ => ExitCode::FAILURE,
    }
}

/// `crate::module::test::{{closure}}` is `module::test` to the test harness.
fn test_name(closure: &str) -> String {
    let path = closure.split("::{{closure}}").next().unwrap_or(closure);
    path.split_once("::").map_or(path, |(_, test)| test).to_owned()
}

fn this_program(home: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("a running program has a path"));
    command.envs(environment(home));
    command
}

/// What a process needs in its environment to have its tokens in `home`.
pub(crate) fn environment(home: &Path) -> [(&'static str, PathBuf); 3] {
    [
        (HOME, home.to_owned()),
        (SOFTHSM_CONF, home.join("softhsm/softhsm2.conf")),
        (KRYOPTIC_CONF, home.join("kryoptic/kryoptic.conf")),
    ]
}

/// Where a module keeps its tokens.
enum Home {
    /// Of an [`isolated`] process; its parent removes it.
    Isolated(PathBuf),
    /// Removed on drop.
    Own(TempDir),
}

impl Home {
    fn new(module: &str) -> Self {
        let home = match env::var_os(HOME) {
            Some(home) => Self::Isolated(Path::new(&home).join(module)),
            None => Self::Own(temporary(module)),
        };
        fs::create_dir_all(home.path()).expect("create the tokens' directory");
        home
    }

    fn path(&self) -> &Path {
        match self {
            Self::Isolated(path) => path,
            Self::Own(directory) => directory.path(),
        }
    }
}

/// SoftHSM 2 (Debian package `softhsm2`). Make one per [`isolated`] test.
pub struct SoftHsm {
    home: Home,
}

impl Default for SoftHsm {
    fn default() -> Self {
        Self::new()
    }
}

impl SoftHsm {
    /// An installation without tokens.
    pub fn new() -> Self {
        assert!(Path::new(SOFTHSM_MODULE).exists(), "{SOFTHSM_MODULE} is not there: apt install softhsm2");
        let home = Home::new("softhsm");
        let tokens = home.path().join("tokens");
        fs::create_dir(&tokens).expect("one SoftHsm per test");
        Self::write_conf(home.path());
        Self { home }
    }

    /// Another installation with the same tokens as they are now. SoftHSM writes to a token at each login, and programs that look for it at that moment do not find it:
    /// whoever runs several at once gives each its own.
    pub fn copy(&self) -> Self {
        let home = Home::Own(temporary("softhsm"));
        let (from, to) = (self.home.path().join("tokens"), home.path().join("tokens"));
        fs::create_dir(&to).expect("create a directory for tokens");
        for token in fs::read_dir(from).expect("read the tokens' directory") {
            let token = token.expect("read the tokens' directory");
            let to = to.join(token.file_name());
            fs::create_dir(&to).expect("create a token's directory");
            for file in fs::read_dir(token.path()).expect("read a token's directory") {
                let file = file.expect("read a token's directory");
                fs::copy(file.path(), to.join(file.file_name())).expect("copy a token");
            }
        }
        Self::write_conf(home.path());
        Self { home }
    }

    fn write_conf(home: &Path) {
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            home.join("tokens").display()
        );
        fs::write(home.join("softhsm2.conf"), conf).expect("write softhsm2.conf");
    }

    /// The module.
    pub fn module(&self) -> &Path {
        Path::new(SOFTHSM_MODULE)
    }

    /// What a program that uses these tokens needs in its environment.
    pub fn env(&self) -> (&'static str, PathBuf) {
        (SOFTHSM_CONF, self.home.path().join("softhsm2.conf"))
    }

    /// Makes a token with these PINs.
    pub fn init_token(&self, label: &str, so_pin: &str, pin: &str) -> TestToken {
        let tokens = || {
            let entries = fs::read_dir(self.home.path().join("tokens")).expect("read the tokens' directory");
            entries.map(|entry| entry.expect("read the tokens' directory").path()).collect::<Vec<_>>()
        };
        let before = tokens();
        init_token(self.module(), self.env(), &["--free"], label, so_pin, pin);
        let storage = tokens().into_iter().find(|token| !before.contains(token)).expect("a new token");
        TestToken::new(self.module(), label, pin, self.home.path(), storage)
    }
}

/// kryoptic, built from crates.io on first use (needs `libssl-dev`, `pkg-config`, `clang`, `libclang-dev`). Make one per [`isolated`] test.
pub struct Kryoptic {
    home: Home,
    module: PathBuf,
    slots: Cell<u32>,
}

impl Default for Kryoptic {
    fn default() -> Self {
        Self::new()
    }
}

impl Kryoptic {
    /// An installation without tokens.
    pub fn new() -> Self {
        Self { home: Home::new("kryoptic"), module: kryoptic_module(), slots: Cell::new(0) }
    }

    /// The module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// What a program that uses these tokens needs in its environment.
    pub fn env(&self) -> (&'static str, PathBuf) {
        (KRYOPTIC_CONF, self.home.path().join("kryoptic.conf"))
    }

    /// Makes a token with these PINs, in a slot of its own.
    pub fn init_token(&self, label: &str, so_pin: &str, pin: &str) -> TestToken {
        self.slots.set(self.slots.get() + 1);
        let conf = (1..=self.slots.get()).fold(String::new(), |mut conf, slot| {
            let database = self.home.path().join(format!("{slot}.sql"));
            let _ = write!(conf, "[[slots]]\nslot = {slot}\ndbtype = \"sqlite\"\ndbargs = {database:?}\n");
            conf
        });
        fs::write(self.home.path().join("kryoptic.conf"), conf).expect("write kryoptic.conf");
        init_token(&self.module, self.env(), &["--slot", &self.slots.get().to_string()], label, so_pin, pin);
        let storage = self.home.path().join(format!("{}.sql", self.slots.get()));
        TestToken::new(&self.module, label, pin, self.home.path(), storage)
    }
}

/// A token that was made here.
pub struct TestToken {
    module: PathBuf,
    label: String,
    pin: String,
    pin_file: PathBuf,
    storage: PathBuf,
}

impl TestToken {
    fn new(module: &Path, label: &str, pin: &str, home: &Path, storage: PathBuf) -> Self {
        let pin_file = home.join(format!("{label}.pin"));
        fs::write(&pin_file, format!("{pin}\n")).expect("write the PIN file");
        fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("close the PIN file");
        Self { module: module.into(), label: label.into(), pin: pin.into(), pin_file, storage }
    }

    /// The URI of the key called `object`; the PIN has to be asked for. Labels of letters, digits and `-` only.
    pub fn uri(&self, object: &str) -> String {
        format!("pkcs11:token={};object={object}?module-path={}", self.label, self.module.display())
    }

    /// The same with the PIN in a file that the URI names.
    pub fn uri_with_pin(&self, object: &str) -> String {
        format!("{}&pin-source=file:{}", self.uri(object), self.pin_file.display())
    }

    /// The user PIN.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The file that holds the user PIN, mode 0600.
    pub fn pin_file(&self) -> &Path {
        &self.pin_file
    }

    /// Pulls the token: its storage is moved away. A module that is initialized afterwards does not find it.
    pub fn pull(&self) {
        fs::rename(&self.storage, self.away()).expect("move the token away");
    }

    /// Puts it back. kryoptic has made an empty one in its place.
    pub fn put_back(&self) {
        let _ = fs::remove_file(&self.storage);
        fs::rename(self.away(), &self.storage).expect("move the token back");
    }

    fn away(&self) -> PathBuf {
        // Not beside a SoftHSM token, where everything is a token.
        let home = self.pin_file.parent().unwrap_or(Path::new("."));
        let name = self.storage.file_name().unwrap_or_default().to_string_lossy();
        home.join(format!("{name}.away"))
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The module behind which it is.
    pub fn module(&self) -> &Path {
        &self.module
    }
}

/// `softhsm2-util` initializes the tokens of any module, and wants a SoftHSM configuration even for the others.
fn init_token(module: &Path, env: (&str, PathBuf), slot: &[&str], label: &str, so_pin: &str, pin: &str) {
    let mut command = Command::new("softhsm2-util");
    command
        .env(SOFTHSM_CONF, "/etc/softhsm/softhsm2.conf")
        .env(env.0, env.1)
        .arg("--module")
        .arg(module)
        .arg("--init-token")
        .args(slot);
    command.args(["--label", label, "--so-pin", so_pin, "--pin", pin]);
    let output = support::output(&mut command);
    assert!(output.status.success(), "softhsm2-util --init-token: {}\n{}", output.status, shown(&output));
}

/// Builds kryoptic as a PKCS#11 module and returns its path. The second time in a target directory this takes no time.
pub(crate) fn kryoptic_module() -> PathBuf {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    let build = || support::build("kryoptic", true).join("libclaviger_kryoptic.so");
    MODULE.get_or_init(build).clone()
}

pub(crate) fn temporary(what: &str) -> TempDir {
    tempfile::Builder::new().prefix(&format!("claviger-{what}-")).tempdir().expect("create a temporary directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_names_its_test() {
        fn name_of<F: FnOnce()>(_: F) -> String {
            test_name(std::any::type_name::<F>())
        }
        assert_eq!(name_of(|| ()), "token::tests::a_closure_names_its_test");
    }

    #[test]
    fn an_isolated_test_has_its_own_tokens() {
        isolated(|| {
            let softhsm = SoftHsm::new();
            let (variable, conf) = softhsm.env();
            assert_eq!(env::var_os(variable), Some(conf.into_os_string()));
            let token = softhsm.init_token("one", SO_PIN, PIN);
            assert_eq!(fs::read_to_string(token.pin_file()).unwrap().trim(), PIN);
        });
    }

    #[test]
    fn an_isolated_failure_is_a_failure() {
        let outcome = std::panic::catch_unwind(|| isolated(|| panic!("on purpose")));
        match (outcome, env::var_os(HOME)) {
            (Err(panic), Some(_)) => std::panic::resume_unwind(panic),
            (Err(panic), None) => assert!(panic.downcast_ref::<String>().unwrap().contains("on purpose")),
            (Ok(()), _) => panic!("the failure was lost"),
        }
    }
}
