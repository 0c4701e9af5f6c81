"""A peer by the library dissononce."""
import importlib

from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.blake2s import Blake2sHash
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.psk import PSKPatternModifier

import wire

CIPHERS = {"ChaChaPoly": ChaChaPolyCipher, "AESGCM": AESGCMCipher}
HASHES = {"BLAKE2s": Blake2sHash, "SHA256": SHA256Hash}


class Noise:
    def __init__(self, args):
        noise, pattern, curve, cipher, hash_name = args.protocol.split("_")
        if (noise, curve) != ("Noise", "25519"):
            raise ValueError(f"{args.protocol} is not supported")
        pattern, _, place = pattern.partition("psk")
        family = "deferred" if any(c.isdigit() for c in pattern) else "interactive"
        module = importlib.import_module(f"dissononce.processing.handshakepatterns.{family}.{pattern}")
        self.symmetric = SymmetricState(CipherState(CIPHERS[cipher]()), HASHES[hash_name]())
        curve = X25519DH()
        self.state = HandshakeState(self.symmetric, curve)
        handshake = getattr(module, pattern + "HandshakePattern")()
        self.state.initialize(
            PSKPatternModifier(int(place)).modify(handshake) if place else handshake,
            args.initiator,
            args.prologue,
            s=curve.generate_keypair(PrivateKey(args.private)),
            rs=PublicKey(args.remote_public) if args.remote_public else None,
            # To begin with: `mix` puts the real one in its place.
            psks=[bytes(32)] if place else None,
        )
        self.initiator = args.initiator
        self.finished = False

    def mix(self, psk):
        self.state._psks[0] = psk  # it keeps a copy, and offers no other way

    def write(self, payload):
        message = bytearray()
        self.split(self.state.write_message(payload, message))
        return bytes(message)

    def read(self, message):
        payload = bytearray()
        self.split(self.state.read_message(message, payload))
        return bytes(payload)

    def split(self, ciphers):
        if ciphers:
            self.sending, self.receiving = ciphers if self.initiator else reversed(ciphers)
            self.finished = True

    def hash(self):
        return self.symmetric.get_handshake_hash()

    def encrypt(self, data):
        return self.sending.encrypt_with_ad(b"", data)

    def decrypt(self, message):
        return self.receiving.decrypt_with_ad(b"", message)


wire.run(Noise)
