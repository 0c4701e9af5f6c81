//! What is said through the control socket.

use crate::daemon::status::Status;
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Version of the protocol. A daemon answers requests of its own version only.
pub const VERSION: u64 = 1;

/// Longest request, in bytes.
pub(super) const MAX_REQUEST: usize = 4096;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Request {
    /// How things stand.
    Status {},
    /// The same, and again whenever something has changed, at most four times a second and at least every five seconds; nothing else can be asked on this connection.
    Watch {},
    /// To read the configuration file again.
    Reload {},
    /// To end.
    Stop {},
}

impl Request {
    /// Whether it changes nothing.
    pub fn only_looks(&self) -> bool {
        matches!(self, Self::Status {} | Self::Watch {})
    }

    /// From a line.
    ///
    /// # Errors
    /// [`ErrorKind::VersionUnsupported`]; [`ErrorKind::DaemonRefused`] for what is not understood.
    pub fn parse(line: &str) -> Result<Self> {
        let refused = |error: serde_json::Error| {
            Error::new(
                ErrorKind::DaemonRefused,
                format!("The request is not understood: {error}."),
                r#"Send one line, such as {"version":1,"command":"status"}."#,
            )
        };
        let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).map_err(refused)?;
        match fields.remove("version").and_then(|version| version.as_u64()) {
            Some(VERSION) => serde_json::from_value(fields.into()).map_err(refused),
            _ => Err(Error::new(
                ErrorKind::VersionUnsupported,
                format!(
                    "This daemon speaks version {VERSION} of the control protocol, and is asked in another, or in none."
                ),
                "Restart the daemon if it was upgraded, so that it is of the same release as the program that asks.",
            )),
        }
    }

    /// As a line.
    pub fn line(&self) -> Vec<u8> {
        to_line(&Versioned { version: VERSION, content: self })
    }
}

/// An answer with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the protocol.
    pub version: u64,
    /// The answer.
    #[serde(flatten)]
    pub content: Content,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Content {
    /// How things stand.
    Status(Box<Status>),
    /// The configuration file was taken over.
    Reloaded {
        /// What has changed, a sentence each.
        changes: Vec<String>,
    },
    /// It ends.
    Stopping {},
    /// It was not done.
    Error {
        /// An [`ErrorKind`]'s text.
        kind: String,
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl From<Content> for Answer {
    fn from(content: Content) -> Self {
        Self { version: VERSION, content }
    }
}

impl From<&Error> for Content {
    fn from(error: &Error) -> Self {
        Self::Error { kind: error.kind().as_str().into(), message: error.to_string(), hint: error.hint().into() }
    }
}

impl Content {
    /// The answer, unless it is an error.
    ///
    /// # Errors
    /// The daemon's own; [`ErrorKind::DaemonRefused`] for a kind that this release does not know.
    pub fn into_result(self) -> Result<Self> {
        match self {
            Self::Error { kind, message, hint } => {
                let known = ErrorKind::ALL.iter().find(|known| known.as_str() == kind);
                Err(Error::new(known.copied().unwrap_or(ErrorKind::DaemonRefused), message, hint))
            }
            content => Ok(content),
        }
    }
}

impl Answer {
    /// As a line.
    pub fn line(&self) -> Vec<u8> {
        to_line(self)
    }
}

#[derive(Serialize)]
struct Versioned<'a> {
    version: u64,
    #[serde(flatten)]
    content: &'a Request,
}

fn to_line(value: &impl Serialize) -> Vec<u8> {
    // Texts and numbers are always written.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines() {
        for request in [Request::Status {}, Request::Watch {}, Request::Reload {}, Request::Stop {}] {
            let line = String::from_utf8(request.line()).unwrap();
            assert_eq!(Request::parse(&line).unwrap(), request);
        }
        assert_eq!(Request::Status {}.line(), b"{\"version\":1,\"command\":\"status\"}\n");
        for (line, kind) in [
            ("", ErrorKind::DaemonRefused),
            ("status", ErrorKind::DaemonRefused),
            ("[]", ErrorKind::DaemonRefused),
            ("{}", ErrorKind::VersionUnsupported),
            (r#"{"command":"status"}"#, ErrorKind::VersionUnsupported),
            (r#"{"version":2,"command":"status"}"#, ErrorKind::VersionUnsupported),
            (r#"{"version":1}"#, ErrorKind::DaemonRefused),
            (r#"{"version":1,"command":"dance"}"#, ErrorKind::DaemonRefused),
            (r#"{"version":1,"command":"stop","soon":true}"#, ErrorKind::DaemonRefused),
        ] {
            assert_eq!(Request::parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn an_error_keeps_its_kind() {
        let error = Error::new(ErrorKind::RestartNeeded, "No.", "Restart it.");
        let answer: Answer = serde_json::from_slice(&Answer::from(Content::from(&error)).line()).unwrap();
        let error = answer.content.into_result().unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str(), error.hint()),
            (ErrorKind::RestartNeeded, "No.", "Restart it.")
        );
        let newer = Content::Error { kind: "from-the-future".into(), message: "A.".into(), hint: "B.".into() };
        assert_eq!(newer.into_result().unwrap_err().kind(), ErrorKind::DaemonRefused);
    }
}
