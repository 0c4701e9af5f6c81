//! Documents as files: read from texts and from pictures with QR codes, written whole or not at all.

mod output;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use claviger::ceremony::document::{Document, MAX_BUNDLE_LEN};
use claviger::ceremony::parts::{Parts, is_part};
use claviger::ceremony::plan::{MAX_PLAN_LEN, Plan};
use claviger::error::{Error, ErrorKind, Result};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::qr;
use claviger::program::{one_line, shown};

pub(crate) use output::{Delivered, deliver};

/// Longest file that is read, in bytes: a picture's.
const MAX_LEN: usize = qr::MAX_IMAGE_LEN;

/// What was read, before it is looked at.
enum Text {
    Whole(String),
    /// The text of that number, which comes in parts.
    Parts(usize),
}

/// Reads all documents of all files, at least one of each, in order; each with where it is from. A file is text, a PNG or a JPEG, and may hold several; `-` is
/// stdin. The parts of a text may come from several pictures. A code that was photographed twice counts once.
///
/// # Errors
/// `Io`; `QrUnreadable` for a picture without a code, with one of something else, or when parts are missing; and those of the documents.
pub(crate) fn read_documents(paths: &[PathBuf]) -> Result<Vec<(String, Document)>> {
    let (mut texts, mut parts) = (Vec::new(), Parts::default());
    let mut scanned: Vec<String> = Vec::new();
    for path in paths {
        for (from_code, text) in read_texts(path).map_err(|error| refused(path, &error))? {
            if is_part(&text) {
                let number = parts.add(&text).map_err(|error| refused(path, &error))?;
                if !texts.iter().any(|(_, text)| matches!(text, Text::Parts(other) if *other == number)) {
                    texts.push((shown(path), Text::Parts(number)));
                }
            } else if !scanned.contains(&text) {
                if from_code {
                    scanned.push(text.clone());
                }
                texts.push((shown(path), Text::Whole(text)));
            }
        }
    }
    let parts = parts.finish()?;
    let mut documents = Vec::new();
    for (from, text) in texts {
        let text = match text {
            Text::Whole(text) => text,
            Text::Parts(number) => parts[number].clone(),
        };
        let read = Document::read_all(&text).map_err(|error| refused(Path::new(&from), &error))?;
        documents.extend(read.into_iter().map(|document| (from.clone(), document)));
    }
    Ok(documents)
}

/// The texts of a file: itself, or what is in its QR codes. `true`: it is from a code.
fn read_texts(path: &Path) -> Result<Vec<(bool, String)>> {
    let bytes = if path == Path::new("-") { read(io::stdin().lock()) } else { File::open(path).and_then(read) };
    let bytes = bytes.map_err(|error| failed(path, "read", error))?;
    let invalid = |why: String, hint: &str| Error::new(ErrorKind::CardInvalid, why, hint);
    if qr::is_image(&bytes) {
        if bytes.len() > MAX_LEN {
            return Err(invalid(format!("It is longer than {} MiB.", MAX_LEN >> 20), "Make the picture smaller."));
        }
        return qr::read(&bytes)?.into_iter().map(|text| Ok((true, of_ours(text)?))).collect();
    }
    let unchanged = "Give a file as `claviger-ceremony` wrote it, or a picture of its QR code.";
    if bytes.len() > MAX_BUNDLE_LEN {
        return Err(invalid(format!("It is longer than {MAX_BUNDLE_LEN} bytes, and no card is."), unchanged));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| invalid("It is neither text nor a PNG or JPEG picture.".into(), unchanged))?;
    Ok(vec![(false, text)])
}

/// The text of a code that this program made.
fn of_ours(text: Vec<u8>) -> Result<String> {
    let other = |begins: &str| {
        let what = format!("It holds a QR code of something else, which begins with {:?}.", one_line(begins));
        Error::new(ErrorKind::QrUnreadable, what, "Give pictures of the codes that `claviger-ceremony` shows.")
    };
    match String::from_utf8(text) {
        Ok(text) if text.trim_start().starts_with("claviger ") => Ok(text),
        Ok(text) => Err(other(&text.chars().take(40).collect::<String>())),
        Err(error) => Err(other(&error.as_bytes().escape_ascii().to_string().chars().take(40).collect::<String>())),
    }
}

/// Says which file it was; a failure to read says so by itself.
fn refused(path: &Path, error: &Error) -> Error {
    if error.kind() == ErrorKind::Io {
        return Error::new(error.kind(), error.to_string(), error.hint());
    }
    let new = Error::new(error.kind(), format!("{} is refused. {error}", shown(path)), error.hint());
    match error.cause() {
        Some(cause) => new.because(cause),
        None => new,
    }
}

/// Reads a plan; `-` is stdin. Nothing longer than a plan is read.
pub(crate) fn read_plan(path: &Path) -> Result<Plan> {
    // One byte more than a plan has, so that a longer file is seen to be one.
    let read = |from: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        from.take(MAX_PLAN_LEN as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    let bytes = bytes.map_err(|error| failed(path, "read", error))?;
    let plan = match std::str::from_utf8(&bytes) {
        // Cut off perhaps in the middle of a character.
        Err(_) if bytes.len() <= MAX_PLAN_LEN => {
            let hint = "Name the plan; `claviger-ceremony plan new -` shows what one looks like.";
            Err(Error::new(ErrorKind::PlanInvalid, "The plan is not UTF-8 text.", hint))
        }
        _ => Plan::from_toml(&String::from_utf8_lossy(&bytes)),
    };
    plan.map_err(|error| Error::new(error.kind(), format!("{} is refused. {error}", shown(path)), error.hint()))
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than there may be, so that a longer file is seen to be one.
    from.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What [`write_file`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    New,
    /// The file holds exactly this already.
    AlreadyThere,
}

/// What [`write_file`] would do. Writes nothing.
pub(crate) fn check_file(path: &Path, content: &[u8], force: bool) -> Result<Written> {
    let refused = |why: &str, hint: &str| {
        let what = format!("{} {why}; it was not overwritten.", path.display());
        Error::new(ErrorKind::Io, what, hint)
    };
    // A directory, a FIFO on which reading would wait, a device that root could replace.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(refused("is not a regular file", "Name a file, or write to standard output with `-`."));
    }
    match File::open(path).and_then(read) {
        Ok(there) if there == content => Ok(Written::AlreadyThere),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::metadata(directory(path)) {
            Ok(_) => Ok(Written::New),
            Err(error) => Err(failed(path, "write", error)),
        },
        Ok(_) | Err(_) if force => Ok(Written::New),
        Ok(_) => Err(refused("holds something else", "Name another file, or overwrite it with `--force`.")),
        Err(error) => Err(failed(path, "read", error)),
    }
}

/// Writes a file, mode 0600, whole or not at all. A file that holds something else is replaced only by `force`.
pub(crate) fn write_file(path: &Path, content: &[u8], force: bool) -> Result<Written> {
    if check_file(path, content, force)? == Written::AlreadyThere {
        return Ok(Written::AlreadyThere);
    }
    let Some(name) = path.file_name() else {
        return Err(failed(path, "write", io::ErrorKind::InvalidInput.into()));
    };
    let mut random = [0; 8];
    getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|error| failed(path, "name a new file beside", error.into()))?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{:016x}", u64::from_le_bytes(random)));
    let new = path.with_file_name(new);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    if let Err(error) = written {
        // Best effort: the error that is reported is the first one.
        let _ = fs::remove_file(&new);
        return Err(failed(path, "write", error));
    }
    // Best effort: the directory of a USB stick's file system can not always be synced.
    let _ = File::open(directory(path)).map(|directory| directory.sync_all());
    Ok(Written::New)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A call on a file failed.
pub(crate) fn failed(path: &Path, call: &str, error: io::Error) -> Error {
    let what = format!("Could not {call} {}: {error}.", shown(path));
    Error::new(ErrorKind::Io, what, "Check the path, its permissions and the room on its disk.").because(error)
}
