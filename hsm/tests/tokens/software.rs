//! Key files, as a backend; what they have of their own is in `keyfile.rs` beside this test.

use claviger_hsm::{Curve, ErrorKind, Locator, TokenKind, Touch};
use tempfile::TempDir;

use crate::backend::{Backend, Given, kind, open, ready};

pub(crate) struct KeyFile(TempDir);

impl Backend for KeyFile {
    const KIND: TokenKind = TokenKind::Software;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn place(&self, curve: Curve) -> Locator {
        Locator::File(self.0.path().join(format!("{curve}.pem")).into())
    }
}

/// It is called software wherever it is shown.
#[test]
fn what_it_is_called() {
    let curve = Curve::P256;
    let (backend, locator, _) = ready::<KeyFile>(curve);
    let token = open(&locator, None, &mut Given::new(KeyFile::PIN)).unwrap();
    let hints = token.hints();
    assert!(hints.label.starts_with("software key") && !hints.hardware && hints.touch == Touch::Never, "{hints:?}");
    let missing = Locator::File(backend.0.path().join("none.pem").into());
    assert_eq!(kind(open(&missing, None, &mut Given::new(KeyFile::PIN))), ErrorKind::Io);
}
