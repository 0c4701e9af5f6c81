//! The store's directory and file: who may read them, and how they come to be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::fail;
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "store.db";

/// Where a store is when nobody says otherwise: `$XDG_DATA_HOME/claviger`, or `~/.local/share/claviger` (XDG Base Directory
/// Specification 0.8). `None` when neither variable names an absolute path.
pub fn default_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")))?;
    Some(data.join("claviger"))
}

/// The path as it stays valid when the process changes its working directory.
pub(super) fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).map_err(|error| fail::io(dir, "find", error))
}

/// The database in `dir`, after the checks of owner, type and mode of both.
pub(super) fn existing(dir: &Path) -> Result<PathBuf> {
    let absent = || {
        Error::new(
            ErrorKind::StoreAbsent,
            format!("There is no store in {}.", dir.display()),
            "Set this machine up with `claviger-ceremony init`, or name the right directory with `--store`.",
        )
    };
    match fs::metadata(dir) {
        Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => return Err(absent()),
        Err(error) => return Err(fail::io(dir, "look at", error)),
        Ok(meta) if !meta.is_dir() => return Err(absent()),
        Ok(meta) => private(dir, &meta, "700")?,
    }
    let path = dir.join(NAME);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == Io::NotFound => return Err(absent()),
        Err(error) => return Err(fail::io(&path, "look at", error)),
        Ok(meta) if !meta.is_file() => return Err(fail::corrupt(dir, "`store.db` is not a regular file")),
        Ok(meta) => private(&path, &meta, "600")?,
    }
    Ok(path)
}

fn private(path: &Path, meta: &fs::Metadata, mode: &str) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let shown = path.display();
    if meta.uid() != us {
        return Err(Error::new(
            ErrorKind::StorePermissions,
            format!("{shown} belongs to user {} and this command runs as user {us}.", meta.uid()),
            format!("Run it as the store's owner, or give the store to this user with `chown {us} '{shown}'`."),
        ));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::StorePermissions,
            format!("{shown} is open to other users (mode {:04o}).", meta.mode() & 0o7777),
            format!("Close it with `chmod {mode} '{shown}'`."),
        ));
    }
    Ok(())
}

/// Makes `dir` where it is missing, lets `build` fill a new empty file of mode 0600 in it, and gives that file the store's name,
/// which must be free. On failure everything that was made is gone again.
pub(super) fn create(dir: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let made = make_dir(dir)?;
    // A power cut must not take the directories away from a store that was reported.
    let outcome = create_in(dir, build).and_then(|()| made.iter().filter_map(|dir| dir.parent()).try_for_each(sync));
    if outcome.is_err() {
        for dir in made.iter().rev() {
            // Best effort, and only ever an empty directory: the error that is reported is the first one.
            let _ = fs::remove_dir(dir);
        }
    }
    outcome
}

fn create_in(dir: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let meta = fs::metadata(dir).map_err(|error| fail::io(dir, "look at", error))?;
    private(dir, &meta, "700")?;
    let path = dir.join(NAME);
    let exists = || {
        Error::new(
            ErrorKind::StoreExists,
            format!("There is a store in {} already.", dir.display()),
            "See it with `claviger-ceremony show`, or name another directory with `--store`.",
        )
    };
    if fs::symlink_metadata(&path).is_ok() {
        return Err(exists());
    }
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| fail::io(dir, "make a random name in", Io::Other))?;
    let new = dir.join(format!(".{NAME}.{}", data_encoding::HEXLOWER.encode(&random)));
    let finished = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|error| fail::io(&new, "create", error))
        .and_then(|file| build(&new).map(|()| file))
        .and_then(|file| file.sync_all().map_err(|error| fail::io(&new, "write", error)))
        .and_then(|()| match rustix::fs::renameat_with(CWD, &new, CWD, &path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => Err(exists()),
            // No such rename on NFS and the like, where SQLite's locks are not safe either.
            Err(rustix::io::Errno::INVAL) => Err(Error::new(
                ErrorKind::StoreIo,
                format!("The file system of {} can not rename without overwriting.", dir.display()),
                "Put the store on a local disk: name another directory with `--store`.",
            )),
            renamed => renamed.map_err(|error| fail::io(&path, "rename a file to", error)),
        });
    if finished.is_err() {
        for suffix in ["", "-journal"] {
            // Best effort, as above; SQLite leaves a journal when a transaction could not be rolled back.
            let _ = fs::remove_file(format!("{}{suffix}", new.display()));
        }
    }
    finished?;
    sync(dir)
}

/// Makes a directory's entries durable.
fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| fail::io(dir, "sync", error))
}

/// Makes `dir` and its missing parents, mode 0700, and says which it made, outermost first.
fn make_dir(dir: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| fs::symlink_metadata(dir).is_err()).collect();
    let mut made = Vec::new();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => made.push(dir.to_owned()),
            // Another process made it in between.
            Err(error) if error.kind() == Io::AlreadyExists => {}
            Err(error) => {
                for dir in made.iter().rev() {
                    let _ = fs::remove_dir(dir);
                }
                return Err(fail::io(dir, "create the directory", error));
            }
        }
    }
    Ok(made)
}
