//! Control messages: whatever a peer sends is read to its end or refused, and what is read has one spelling.

use claviger::wire::control::{Control, MAX_CONTROL};

/// The input is a record.
pub fn check(data: &[u8]) {
    let (mut rest, mut again) = (data, Vec::new());
    while !rest.is_empty() {
        let before = rest.len();
        let Ok(message) = Control::read(&mut rest) else { break };
        assert!(rest.len() < before && before - rest.len() <= MAX_CONTROL, "{message:?}");
        message.write(&mut again);
        assert_eq!(again, data[..data.len() - rest.len()], "{message:?} has two spellings");
    }
}
