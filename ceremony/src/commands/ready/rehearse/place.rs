//! Where a rehearsal is played: a directory that nobody else can read, and that is gone afterwards.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use claviger::error::{Error, ErrorKind, Result};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::files::failed;

/// A directory of mode 0700; removed on drop, with everything in it, unless somebody named it.
pub(super) struct Place {
    path: PathBuf,
    kept: bool,
}

impl Place {
    /// `named`: a directory that is kept, and must be empty or not be there. Otherwise one in memory where the system has such a place for this user.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn new(named: Option<&Path>) -> Result<Self> {
        if let Some(path) = named {
            let path = std::path::absolute(path).map_err(|error| failed(path, "find", error))?;
            let made = match make(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => empty(&path),
                made => made,
            };
            made.map_err(|error| failed(&path, "make", error))?;
            return Ok(Self { path, kept: true });
        }
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("There is no randomness: getrandom: {error}."), "Run it again.")
        })?;
        let memory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let name = format!("claviger-rehearsal-{:016x}", u64::from_le_bytes(random));
        let mut last = None;
        for parent in memory.into_iter().chain([std::env::temp_dir()]) {
            let path = std::path::absolute(parent.join(&name)).unwrap_or_else(|_| parent.join(&name));
            match make(&path) {
                Ok(()) => return Ok(Self { path, kept: false }),
                Err(error) => last = Some(failed(&path, "make", error)),
            }
        }
        Err(last.unwrap_or_else(|| failed(Path::new(&name), "make", io::ErrorKind::NotFound.into())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).recursive(true).create(&path).map_err(|error| failed(&path, "make", error))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            // What is left are throw-away keys of nobody, readable by this user alone.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn empty(path: &Path) -> io::Result<()> {
    match fs::read_dir(path)?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("there is something in it already")),
    }
}

/// Copies a directory with everything in it, modes too.
///
/// # Errors
/// `Io`.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let make = DirBuilder::new().mode(0o700).recursive(true).create(to);
    make.map_err(|error| failed(to, "make", error))?;
    for entry in fs::read_dir(from).map_err(|error| failed(from, "read", error))? {
        let path = entry.map_err(|error| failed(from, "read", error))?.path();
        let Some(name) = path.file_name() else { continue };
        let new = to.join(name);
        if path.is_dir() {
            copy(&path, &new)?;
        } else {
            fs::copy(&path, &new).map_err(|error| failed(&path, "copy", error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_gone_unless_it_was_named() {
        let place = Place::new(None).unwrap();
        let path = place.path().to_owned();
        place.directory("a/b").unwrap();
        fs::write(path.join("a/b/c"), "d").unwrap();
        copy(&path.join("a"), &path.join("copy")).unwrap();
        assert_eq!(fs::read(path.join("copy/b/c")).unwrap(), b"d");
        let named = path.join("named");
        drop(Place::new(Some(&named)).unwrap());
        assert!(named.is_dir());
        drop(Place::new(Some(&named)).unwrap());
        fs::write(named.join("file"), "").unwrap();
        assert_eq!(Place::new(Some(&named)).err().unwrap().kind(), ErrorKind::Io);
        drop(place);
        assert!(!path.exists());
    }
}
