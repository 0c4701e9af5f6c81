#!/usr/bin/env python3
"""Recomputes handshakes.json from docs/wire-format.md, sections 3 to 7, with Python's standard library and primitives.py. Exits 0 when all agree.

    python3 tests/vectors/handshakes.py

`python3 tests/vectors/handshakes.py --write` makes the file anew, but for `kem`: that was made with kyber-py 1.2.0 (FIPS 203's internal functions on the seeds `d`, `z`, `m`). A unit test
(src/noise/vectors/own.rs) holds the library to the same file.
"""
import hashlib
import json
import pathlib
import sys

from primitives import AESGCM, P256, X25519, ChaChaPoly, hkdf, hmac_of

FILE = pathlib.Path(__file__).with_name("handshakes.json")
SUITES = {"ChaChaPoly_BLAKE2s": (ChaChaPoly, "blake2s"), "AESGCM_SHA256": (AESGCM, "sha256")}
CURVES = {"25519": X25519, "P256": P256}
PATTERNS = {
    # number, statics known before, messages, place of psk
    "KK": (1, "ir", ("e es ss", "e ee se"), 2),
    "KK1": (2, "ir", ("e", "e ee se es"), 2),
    "XK": (3, "r", ("e es", "e ee", "s se"), 3),
    "NN": (4, "", ("e", "e ee"), 0),
}
KEM, PSK = 0x10, 0x20
STATIC = [bytes([0x11] * 32), bytes([0x22] * 32)]
EPHEMERAL = [bytes([0x33] * 32), bytes([0x44] * 32)]
LATER = [bytes([0x55] * 32), bytes([0x66] * 32)]
SERVICE = bytes(range(32))
TIME, LATER_TIME = 1_800_000_000_123, 1_800_000_060_456
PRESHARED = bytes([0x77] * 32)


class Symmetric:
    """Noise, sections 5.1 and 5.2."""

    def __init__(self, name, suite):
        self.cipher, self.hash_name = SUITES[suite]
        self.ck = self.h = name + bytes(32 - len(name)) if len(name) <= 32 else self.hash(name)
        self.k, self.n = None, 0

    def hash(self, data):
        return hashlib.new(self.hash_name, data).digest()

    def hkdf(self, key, count):
        temp = hmac_of(self.hash_name, self.ck, key)
        out = [b""]
        for number in range(1, count + 1):
            out.append(hmac_of(self.hash_name, temp, out[-1] + bytes([number])))
        return out[1:]

    def mix_hash(self, data):
        self.h = self.hash(self.h + data)

    def mix_key(self, key):
        self.ck, self.k = self.hkdf(key, 2)
        self.n = 0

    def mix_key_and_hash(self, key):
        self.ck, temp, self.k = self.hkdf(key, 3)
        self.mix_hash(temp)
        self.n = 0

    def seal(self, text):
        if self.k:
            text = self.cipher.seal(self.k, self.cipher.nonce(self.n), self.h, text)
            self.n += 1
        self.mix_hash(text)
        return text


class Handshake:
    def __init__(self, pattern, flags, curve, suite, prologue):
        _, known, self.messages, self.place = PATTERNS[pattern]
        self.modified = bool(flags) or pattern == "NN"
        modifier = f"psk{self.place}" if self.modified else ""
        self.name = f"Noise_{pattern}{modifier}_{curve}_{suite}"
        self.curve = CURVES[curve]
        self.state = Symmetric(self.name.encode(), suite)
        self.state.mix_hash(prologue)
        for end in known:
            self.state.mix_hash(self.curve.public(STATIC["ir".index(end)]))

    def write(self, number, ephemeral, psk, payload=b""):
        """Message `number`, from 0. `psk` may be None until the message that mixes it in."""
        me, out = number % 2, b""
        keys = {"s": STATIC, "e": ephemeral}
        tokens = self.messages[number].split()
        if self.modified and self.place == 0 and number == 0:
            self.state.mix_key_and_hash(psk)
        for token in tokens:
            if token == "e":
                public = self.curve.public(ephemeral[me])
                out += public
                self.state.mix_hash(public)
                if self.modified:
                    self.state.mix_key(public)
            elif token == "s":
                out += self.state.seal(self.curve.public(STATIC[me]))
            else:
                # The first letter is the initiator's key, the second the responder's.
                private, public = keys[token[0]][0], self.curve.public(keys[token[1]][1])
                self.state.mix_key(self.curve.agree(private, public))
        if self.modified and self.place == number + 1:
            self.state.mix_key_and_hash(psk)
        return out + self.state.seal(payload)

    def split(self):
        return self.state.hkdf(b"", 2)


def names(*texts):
    return b"".join(bytes([len(text)]) + text.encode() for text in texts)


def prologue(kind):
    ends = names("wallet", "signer", "cosigner", "cosigner")
    return b"claviger" + bytes([2, kind]) + ends + SERVICE + (4747).to_bytes(2, "big")


def knock(kind, time, curve, message):
    publics = b"".join(CURVES[curve].public(private) for private in STATIC)
    head = bytes([2, kind]) + time.to_bytes(8, "big")
    key = hashlib.blake2s(b"claviger knock key 1" + curve.encode() + publics).digest()
    digest = hashlib.blake2s(b"claviger knock 1" + head + message).digest()
    return head + hashlib.blake2s(digest, key=key, digest_size=16).digest() + message


def chain(hash, first, second):
    link = hkdf(first + second, hash, b"claviger resumption 1")
    link_id, psk = hkdf(link, b"", b"claviger resumption id 1", 16), hkdf(link, b"", b"claviger resumption psk 1")
    return {"link": link, "id": link_id, "psk": psk, "next": hkdf(link, b"", b"claviger resumption next 1")}


def records(pattern, suite, keys):
    cipher = SUITES[suite][0]
    # The initiator's confirmation; a word on the streams each way; a PING; and the first record after each direction's first rekey.
    said = [(0, 0, b"")] if pattern in ("KK", "KK1") else []
    first = len(said)
    said += [(0, first, b"\x00hello"), (1, 0, b"\x00good day"), (1, 1, b"\x01\x0112345678")]
    said += [(0, 65536, b"\x00later"), (1, 65536, b"")]
    out = []
    for sender, nonce, text in said:
        key = keys[sender]
        if nonce >= 65536:
            key = cipher.seal(key, cipher.nonce(2**64 - 1), b"", bytes(32))[:32]
        sealed = cipher.seal(key, cipher.nonce(nonce), b"", text)
        frame = len(sealed).to_bytes(2, "big") + sealed
        out.append({"sender": ["initiator", "responder"][sender], "nonce": nonce, "text": text, "frame": frame})
    return out


def full(kem, pattern, flags, curve, suite):
    kind = PATTERNS[pattern][0] | flags
    handshake = Handshake(pattern, flags, curve, suite, prologue(kind))
    ek, ct, secret = (bytes.fromhex(kem[name]) for name in ("encapsulation_key", "ciphertext", "secret"))
    psk, zeros = None, bytes(32)
    if flags:
        digest = hashlib.sha256(ek + ct).digest() if flags & KEM else zeros
        secrets = (secret if flags & KEM else zeros) + (PRESHARED if flags & PSK else zeros)
        psk = hkdf(secrets, b"claviger psk 1", bytes([kind]) + digest)
    bodies = []
    for number in range(len(handshake.messages)):
        payload, front = b"", b""
        if flags & KEM and number == 0:
            payload = ek
        elif flags & KEM and number == 1 and pattern == "XK":
            payload = ct
        elif flags & KEM and number == 1:
            front = ct
        bodies.append(front + handshake.write(number, EPHEMERAL, psk, payload))
    bodies[0] = knock(kind, TIME, curve, bodies[0])
    keys, hash = handshake.split(), handshake.state.h
    out = {"protocol": handshake.name, "kind": kind, "prologue": prologue(kind), "psk": psk, "bodies": bodies}
    out |= {"handshake_hash": hash, "keys": keys, "resumption": chain(hash, *keys)}
    if flags == KEM | PSK:
        out["records"] = records(pattern, suite, keys)
        out["resumed"] = resumed(kind, curve, suite, out)
    return out


def resumed(kind, curve, suite, origin):
    """By the first link."""
    publics = [CURVES[curve].public(private) for private in STATIC]
    bound = origin["handshake_hash"] + bytes([kind]) + TIME.to_bytes(8, "big") + b"".join(publics)
    whole = prologue(4) + bound
    handshake = Handshake("NN", 0, curve, suite, whole)
    link = origin["resumption"]
    first, second = (handshake.write(number, LATER, link["psk"]) for number in range(2))
    bodies = [knock(4, LATER_TIME, curve, link["id"] + first), second]
    keys, hash = handshake.split(), handshake.state.h
    out = {"protocol": handshake.name, "prologue": whole, "bodies": bodies, "handshake_hash": hash}
    return out | {"keys": keys, "resumption": chain(hash, *keys)}


def make(kem):
    flags = (0, KEM, PSK, KEM | PSK)
    cases = [(pattern, flag, "25519", "ChaChaPoly_BLAKE2s") for pattern in ("KK", "KK1", "XK") for flag in flags]
    cases += [(pattern, KEM | PSK, "P256", "AESGCM_SHA256") for pattern in ("KK", "KK1", "XK")]
    sides = lambda privates: dict(zip(("initiator", "responder"), privates))
    return {
        "statics": sides(STATIC),
        "ephemerals": sides(EPHEMERAL),
        "ephemerals_of_resumption": sides(LATER),
        "onion_public_key": SERVICE,
        "time_ms": TIME,
        "time_ms_of_resumption": LATER_TIME,
        "preshared_key": PRESHARED,
        "kem": kem,
        "handshakes": [full(kem, *case) for case in cases],
    }


def plain(value):
    return value.hex() if isinstance(value, bytes) else value


if __name__ == "__main__":
    present = json.loads(FILE.read_text())
    text = json.dumps(make(present["kem"]), indent=1, default=plain)
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(text + "\n")
    same = json.loads(FILE.read_text()) == json.loads(text)
    print("the same" if same else "handshakes.json differs from the document")
    sys.exit(0 if same else 1)
