//! The seal: what it keeps, what it finds, and who opens it.

use super::*;

/// What a token with that number answers. Which 32 bytes a real one gives back is the token's business.
pub(super) fn answer(number: u16) -> SealKey {
    SealKey { key: key(number), agreed: SharedSecret::new([number.to_le_bytes()[0] | 1; 32]) }
}

/// The answer of the token of [`new_machine`].
fn own() -> SealKey {
    answer(u16::MAX)
}

pub(super) fn sealed() -> (TempDir, Store) {
    let (home, dir) = place();
    let store = Store::create(&dir, &new_machine(), &[own()]).unwrap();
    (home, store)
}

#[test]
fn a_sealed_store_is_read_without_the_token_and_changed_with_it() {
    let (_home, mut store) = sealed();
    assert!(store.is_unlocked());
    assert_eq!(store.seal_state().unwrap(), SealState::Sealed(vec![own().key]));
    store.add_peer(&peer("cosigner", 1), "words compared").unwrap();
    let onion = store.onion_secret().unwrap();
    store.verify().unwrap();
    let mut store = Store::open(store.dir()).unwrap();
    assert!(!store.is_unlocked());
    assert_eq!(store.peers().unwrap().len(), 1);
    assert_eq!(kind(store.onion_secret()), ErrorKind::StoreLocked);
    assert_eq!(kind(store.verify()), ErrorKind::StoreLocked);
    assert_eq!(kind(store.add_peer(&peer("other", 2), "")), ErrorKind::StoreLocked);
    assert_eq!(kind(store.unlock(&answer(5))), ErrorKind::KeyMismatch);
    assert_eq!(kind(store.unlock(&SealKey { agreed: SharedSecret::new([3; 32]), ..own() })), ErrorKind::StoreTampered);
    store.unlock(&own()).unwrap();
    assert_eq!(store.onion_secret().unwrap().expose(), onion.expose());
    store.add_peer(&peer("other", 2), "").unwrap();
    store.remove_peer(&"cosigner".parse().unwrap()).unwrap();
    store.unseal().unwrap();
    assert_eq!(store.seal_state().unwrap(), SealState::Unsealed);
    assert_eq!(store.onion_secret().unwrap().expose(), onion.expose());
    store.seal(&[own()]).unwrap();
    assert_eq!(store.onion_secret().unwrap().expose(), onion.expose());
    assert_eq!(store.log().unwrap().len(), 7);
}
