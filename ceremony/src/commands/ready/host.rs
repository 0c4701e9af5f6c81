//! What the machine around the store gives: directories, disk, clock, memory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use claviger::store::LogEntry;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, geteuid, getrlimit};

use super::checklist::Checklist;
use crate::report::utc;

/// What a store, its journal and everything that a ceremony writes beside it fit into many times over.
const ROOM: u64 = 64 << 20;

/// This build is not older: the time that its packager gave (reproducible-builds.org, `SOURCE_DATE_EPOCH`), or when this line was last looked at.
fn built() -> u64 {
    let looked_at = 1_795_219_200; // 2026-11-21
    option_env!("SOURCE_DATE_EPOCH").and_then(|time| time.parse().ok()).unwrap_or(0).max(looked_at)
}

/// The deepest directory of `path` that is there.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Where a store can be made. A directory that is open to others was refused before.
pub(super) fn place(dir: &Path, list: &mut Checklist) {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = existing(&dir);
    let shown = there.display();
    let usable = access(&there, Access::WRITE_OK | Access::EXEC_OK);
    match fs::metadata(&there) {
        Err(error) => list.fail("store", format!("{shown} can not be looked at: {error}."), "Check the path."),
        Ok(_) if usable.is_err() => list.fail(
            "store",
            format!("The store can not be made in {}: {shown} may not be written to.", dir.display()),
            "Name another directory with `--store DIR`, or run this as the user whom the machine's daemon runs as.",
        ),
        Ok(_) => list.ok("store", format!("None yet; it can be made in {}.", dir.display())),
    }
    above(&dir, list);
}

/// Whoever may write to a directory on the way can put another store in this one's place.
pub(super) fn above(dir: &Path, list: &mut Checklist) {
    let us = geteuid().as_raw();
    let there = existing(dir);
    let there = there.canonicalize().unwrap_or(there);
    for directory in there.ancestors() {
        let Ok(meta) = fs::metadata(directory) else { continue };
        // In a sticky directory only its owner renames what is in it.
        let open = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
        if open || !(meta.uid() == us || meta.uid() == 0) {
            let shown = directory.display();
            list.warn(
                "store",
                format!(
                    "Others may exchange what is in {shown} (owner {}, mode {:04o}), and with it the store.",
                    meta.uid(),
                    meta.mode() & 0o7777
                ),
                format!("Close it with `chmod go-w '{shown}'`, or keep the store elsewhere."),
            );
        }
    }
}

pub(super) fn disk(dir: &Path, list: &mut Checklist) {
    let there = existing(dir);
    let shown = there.display();
    match statvfs(&there) {
        Err(error) => list.fail(
            "disk",
            format!("The disk below {shown} can not be asked for its room: {error}."),
            "Check the disk, or name another directory with `--store DIR`.",
        ),
        Ok(disk) if disk.f_flag.contains(StatVfsMountFlags::RDONLY) => list.fail(
            "disk",
            format!("The disk below {shown} is mounted read-only."),
            "Mount it for writing, or name another directory with `--store DIR`.",
        ),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let text = format!("{} MiB free below {shown}", free >> 20);
            if free < ROOM {
                let hint = "Make room, or name another directory with `--store DIR`.";
                list.fail("disk", format!("{text}, and 64 MiB are wanted."), hint);
            } else {
                list.ok("disk", format!("{text}."));
            }
        }
    }
}

/// `last`: the last entry of the ceremony log.
pub(super) fn clock(now: u64, last: Option<&LogEntry>, list: &mut Checklist) {
    let set = "Set it, then run this again: `timedatectl set-time 'YYYY-MM-DD hh:mm:ss'`.";
    let built = built();
    if now < built {
        let what = format!("The clock says {}, and this program was built after {}.", utc(now), utc(built));
        list.fail("clock", what, set);
    } else if let Some(last) = last.filter(|last| last.time > now) {
        let what =
            format!("The clock says {}, and the last entry of the ceremony log is of {}.", utc(now), utc(last.time));
        let hint = format!("{set} If the clock is right, that entry was made while it was wrong: say so to everybody.");
        list.fail("clock", what, hint);
    } else {
        list.ok("clock", format!("{}; compare it with a watch.", utc(now)));
    }
}

/// Whether what is in memory can reach the disk.
pub(super) fn memory(list: &mut Checklist) {
    let core = getrlimit(Resource::Core).maximum == Some(0);
    if core && dumpable_behavior().is_ok_and(|behavior| behavior == DumpableBehavior::NotDumpable) {
        list.ok("core dumps", "Off for this program, and no debugger of this user may look into it.");
    } else {
        list.warn(
            "core dumps",
            "A crash of this program may be written to the disk with what is in its memory.",
            "Run it outside the sandbox that keeps it from turning this off.",
        );
    }
    match fs::read_to_string("/proc/swaps") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => list.ok("swap", "This kernel has none."),
        Err(error) => {
            let hint = "See whether swap is on with `swapon --show`.";
            list.warn("swap", format!("It is not known whether swap is on: /proc/swaps: {error}."), hint);
        }
        Ok(swaps) => {
            let clear = in_the_clear(&swaps);
            if clear.is_empty() {
                let what = if swaps.lines().nth(1).is_some() { "On, encrypted or in memory." } else { "Off." };
                list.ok("swap", what);
            } else {
                list.warn(
                    "swap",
                    format!("Swap is on ({}): what is in memory, a PIN for one, may reach the disk.", clear.join(", ")),
                    "Turn it off for the ceremony with `swapoff -a`, unless you know that it is encrypted.",
                );
            }
        }
    }
}

/// The places in `/proc/swaps` that are not known to be encrypted or in memory (proc(5)).
fn in_the_clear(swaps: &str) -> Vec<&str> {
    let places = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    places.filter(|place| !(place.starts_with("/dev/zram") || is_encrypted(place))).collect()
}

/// A device-mapper device whose UUID cryptsetup gave: `CRYPT-PLAIN-…`, `CRYPT-LUKS2-…`.
fn is_encrypted(place: &str) -> bool {
    let device = Path::new(place).canonicalize().ok().and_then(|path| path.file_name().map(ToOwned::to_owned));
    let uuid = device.map(|name| Path::new("/sys/class/block").join(name).join("dm/uuid"));
    uuid.and_then(|path| fs::read_to_string(path).ok()).is_some_and(|uuid| uuid.starts_with("CRYPT-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_in_the_clear_is_named() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(in_the_clear(head).is_empty());
        let swaps = format!("{head}/dev/zram0  partition 1 0 -2\n/swap.img   file 1 0 -3\n");
        assert_eq!(in_the_clear(&swaps), ["/swap.img"]);
    }

    #[test]
    fn a_clock_that_was_set_back_fails() {
        let verdicts = |now: u64| {
            let mut list = Checklist::default();
            clock(now, None, &mut list);
            list.failed().len()
        };
        assert_eq!((verdicts(0), verdicts(built() - 1), verdicts(built())), (1, 1, 0));
    }

    #[test]
    fn the_deepest_directory_that_is_there() {
        assert_eq!(existing(Path::new("/no-such/a/b")), Path::new("/"));
    }
}
