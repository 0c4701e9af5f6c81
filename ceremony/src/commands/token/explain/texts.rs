//! What `token explain` says.

use claviger_hsm::TokenKind;

/// Names, and what they are.
pub(super) type Rows = &'static [(&'static str, &'static str)];

pub(super) struct Family {
    pub(super) kind: TokenKind,
    pub(super) title: &'static str,
    pub(super) parts: Rows,
}

pub(super) const MACHINE: Rows = &[
    (
        "static key",
        "on the token. All it does is agree: the Diffie-Hellman by which a peer knows that this machine is this machine. It signs \
         nothing and never leaves the token.",
    ),
    (
        "onion key",
        "in the store, sealed to the token. It makes the onion address, and tor or arti needs it in memory. It opens no session.",
    ),
    (
        "client auth key",
        "in the store, sealed to the token. With it tor or arti can read the descriptors of peers' onion services.",
    ),
    ("identity card", "public: the public halves of the three, with name and role."),
];

pub(super) const THIEF: Rows = &[
    (
        "the token",
        "nothing without its PIN, and tries are counted. A key with the PIN policy `never` works for whoever has the token.",
    ),
    (
        "token and PIN",
        "this machine's identity, until its peers run `claviger-ceremony revoke`. The key can not be copied: once the token is back, \
         nobody else has it.",
    ),
    ("the PIN", "nothing without the token."),
    (
        "the store",
        "the names, keys and addresses of all peers, and no secret: those are sealed to the token. From a store that is not sealed \
         the onion address, too: the thief can stand in its place, and no handshake succeeds there.",
    ),
    (
        "the computer, on",
        "operations of the token as long as it is plugged in and the PIN verified. A touch policy limits that to one for each \
         touch.",
    ),
    ("a key file", "the identity for good, once its passphrase is guessed: a file does not count tries."),
];

pub(super) const FAMILIES: [Family; 5] = [
    Family {
        kind: TokenKind::OpenPgp,
        title: "OpenPGP card (Nitrokey, Gnuk, SmartPGP, YubiKey)",
        parts: &[
            (
                "decryption key",
                "the static key: the only one of the card that agrees. There is one. Where it decrypts mail, making a new one ends \
                 that: use another card, or PIV on a YubiKey.",
            ),
            ("signature key", "not used here: signs mail and commits."),
            ("authentication key", "not used here: logs in to ssh."),
            ("attestation key", "YubiKey only: its maker's; signs the statement that a key was made in the device."),
            (
                "PIN (PW1)",
                "for the decryption key, once after plugging in. 3 tries. From the factory 123456: change it, `gpg --card-edit`, \
                 `passwd`.",
            ),
            (
                "admin PIN (PW3)",
                "makes and overwrites keys and unblocks the PIN; can not use a key. 3 tries, then the card can only be reset, which \
                 erases it. From the factory 12345678.",
            ),
            ("reset code", "unblocks the PIN, if one was set."),
        ],
    },
    Family {
        kind: TokenKind::Piv,
        title: "PIV card (YubiKey, and smart cards after SP 800-73-4)",
        parts: &[
            ("9D", "key management: made to agree, so the usual place of a static key."),
            ("82 to 95", "retired key management: twenty more places that agree, for further machines."),
            ("9A, 9C, 9E", "not used here: log-in, signature, and card authentication, which wants no PIN."),
            ("F9", "YubiKey only: its maker's; signs the statement that a key was made in the device."),
            (
                "PIN",
                "for keys whose PIN policy wants it: `once` after plugging in, `always` for each operation. 6 to 8 characters, 3 \
                 tries. From the factory 123456: change it, `ykman piv access change-pin`.",
            ),
            ("PUK", "unblocks the PIN; can not use a key. From the factory 12345678."),
            (
                "management key",
                "makes, imports and overwrites keys; can not use one. From the factory it is known to everybody: who has the card \
                 for a minute can overwrite your key, not use it. `ykman piv access change-management-key`.",
            ),
        ],
    },
    Family {
        kind: TokenKind::Pkcs11,
        title: "PKCS#11 token (HSM, SoftHSM, OpenSC)",
        parts: &[
            (
                "key pair",
                "an object with a label: the static key. Made here it is sensitive and not extractable, and may only derive. \
                 SoftHSM keeps such keys in files: they are software.",
            ),
            ("user PIN", "for every key of the token. Tries are counted by most, and shown by few."),
            (
                "SO PIN",
                "sets the user PIN anew, and erases the token. Some tokens let it do both without the user PIN.",
            ),
        ],
    },
    Family {
        kind: TokenKind::Tpm,
        title: "TPM 2.0",
        parts: &[
            (
                "persistent key",
                "tpm2:0x81010042: the static key, in a chip of this computer. P-256 only. It goes where the computer goes, and dies \
                 with its mainboard.",
            ),
            (
                "owner key",
                "tpm2:owner/NAME: computed from the TPM's seed and the name at every start, always the same. Its PIN is the owner \
                 authorization.",
            ),
            (
                "PIN",
                "a persistent key's authorization value. Wrong ones count for the whole TPM, which then takes none for a time \
                 (dictionary attack protection).",
            ),
            (
                "owner auth",
                "the authorization value of the owner hierarchy: makes and removes persistent keys, and uses owner keys. Empty on \
                 most computers: then their administrators have it. Nothing counts wrong ones.",
            ),
            ("TPM clear", "in the firmware's menu: erases all of it."),
        ],
    },
    Family {
        kind: TokenKind::Software,
        title: "Software key (a file)",
        parts: &[
            (
                "key file",
                "the static key, encrypted; in this computer's memory when used. For tests, and for machines that can be replaced.",
            ),
            ("passphrase", "the only thing between a copy of the file and the key."),
        ],
    },
];
