//! In place of the pinentry program where there is no `claviger` command line: the ceremony starts no programs, and has no function by which it could.

use super::Missing;
use crate::config::PinEntryProgram;
use crate::secret::SecretString;
use std::convert::Infallible;
use std::time::Duration;

/// There is none.
pub(super) struct Window(Infallible);

impl Window {
    pub(super) fn find(_: &PinEntryProgram) -> Option<Self> {
        None
    }

    pub(super) fn secret(&self, _: &str, _: bool, _: Option<Duration>) -> Result<Option<SecretString>, Missing> {
        match self.0 {}
    }

    pub(super) fn confirm(&self, _: &str, _: Option<Duration>) -> Result<bool, Missing> {
        match self.0 {}
    }
}
