//! Files and TCP ports: Landlock (landlock(7)).

use super::needs::Needs;
use super::{APPLIED, Outcome, not, partly};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use std::os::fd::AsFd;
use std::path::Path;

/// What is asked for: files since ABI 1, ports since 4, ioctl(2) on devices since 5, signals and abstract sockets since 6. A kernel that knows less applies what it knows;
/// one that knows more is not asked for it, so that nothing changes with a kernel alone.
const KNOWN: ABI = ABI::V6;

/// Restricts this thread, and those that it makes, to `needs`.
pub(super) fn restrict(needs: &Needs) -> Outcome {
    match apply(needs) {
        Ok(status) => match (status.ruleset, status.landlock) {
            (RulesetStatus::FullyEnforced, _) => APPLIED,
            (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => partly(format!(
                "this kernel has Landlock ABI {}, and all of it is there from {} on",
                effective_abi as i32, KNOWN as i32
            )),
            (_, LandlockStatus::NotEnabled) => {
                not("Landlock is not among this kernel's security modules: boot with `lsm=landlock,…`".into())
            }
            _ => not("this kernel has no Landlock, which is there since Linux 5.13".into()),
        },
        Err(error) => not(error.to_string()),
    }
}

fn apply(needs: &Needs) -> Result<landlock::RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    // Nothing is executed, and no device made.
    let write = all & !make_bitflags!(AccessFs::{Execute | MakeBlock | MakeChar});
    let sockets = make_bitflags!(AccessFs::{ReadDir | MakeSock | RemoveFile});
    // A service manager in a container may be told by an abstract socket (sd_notify(3)).
    let notified = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| socket.as_encoded_bytes().starts_with(b"@"));
    let scopes = if notified { Scope::Signal.into() } else { Scope::from_all(KNOWN) };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .scope(scopes)?;
    if needs.connect.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut ruleset = ruleset.create()?;
    for (paths, rights) in [(&needs.read, read), (&needs.write, write), (&needs.sockets, sockets)] {
        for path in paths {
            let Some((file, rights)) = opened(path, rights) else { continue };
            ruleset = ruleset.add_rule(PathBeneath::new(file, rights))?;
        }
    }
    for port in &needs.bind {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    for port in needs.connect.iter().flatten() {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    ruleset.restrict_self()
}

/// What a rule stands on, with the rights that fit it. What is not there, or can not be reached by this user, needs no rule.
fn opened(path: &Path, rights: BitFlags<AccessFs>) -> Option<(PathFd, BitFlags<AccessFs>)> {
    let file = PathFd::new(path).ok()?;
    let is_directory =
        rustix::fs::fstat(file.as_fd()).ok().map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())?;
    let rights = if is_directory { rights } else { rights & AccessFs::from_file(KNOWN) };
    (!rights.is_empty()).then_some((file, rights))
}
