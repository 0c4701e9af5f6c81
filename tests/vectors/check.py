#!/usr/bin/env python3
"""Recomputes claviger.json from docs/wire-format.md alone, with Python's standard library. Exits 0 when all agree.

    python3 tests/vectors/check.py

`python3 tests/vectors/check.py --write` makes the file anew; a unit test (src/vectors.rs) holds the library to the same file.
"""
import base64
import hashlib
import hmac
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("claviger.json")


def names(*texts):
    return b"".join(bytes([len(text)]) + text.encode() for text in texts)


def onion(key):
    check = hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
    return base64.b32encode(key + check + b"\x03").decode().lower() + ".onion"


def card(body):
    """The whole text of a card, and what people compare."""
    fingerprint = hashlib.sha256(b"claviger card fingerprint 1\n" + body.encode()).digest()[:16]
    bits = int.from_bytes(fingerprint, "big")
    return {
        "text": f"{body}checksum: {hashlib.sha256(body.encode()).hexdigest()[:16]}\n",
        "fingerprint": fingerprint.hex(),
        "word_numbers": [bits >> (128 - 11 * (at + 1)) & 0x7FF for at in range(8)],
    }


def make():
    initiator, responder = bytes([9]) + bytes(31), bytes([16]) + bytes(31)
    service = bytes(range(32))
    out = {"initiator": initiator.hex(), "responder": responder.hex(), "onion_public_key": service.hex()}

    # Section 3 of the document: the knock around a Noise message of KK's length.
    message, time, kind = bytes(range(100, 148)), 1_800_000_000_123, 1
    head = bytes([2, kind]) + time.to_bytes(8, "big")
    key = hashlib.blake2s(b"claviger knock key 1" + b"25519" + initiator + responder).digest()
    digest = hashlib.blake2s(b"claviger knock 1" + head + message).digest()
    mac = hashlib.blake2s(digest, key=key, digest_size=16).digest()
    out["knock"] = {"time_ms": time, "message": message.hex(), "packet": (head + mac + message).hex()}

    # Section 4: the prologue of KK from wallet (role signer) to cosigner (role cosigner), port 4747.
    ends = names("wallet", "signer", "cosigner", "cosigner")
    prologue = b"claviger" + bytes([2, kind]) + ends + service + (4747).to_bytes(2, "big")
    out["prologue"] = prologue.hex()

    # Section 8: a card, of either format.
    client_auth = base64.b32encode(bytes(range(32, 64))).decode().rstrip("=")
    chain = [bytes(range(200)), b"\x30\x00"]
    attestation = " ".join(["yubico-piv"] + [base64.b64encode(der).decode() for der in chain])
    body = (
        "claviger identity card 3\nidentifier: cosigner\nrole: cosigner\ntoken: hardware\n"
        f"attestation: {attestation}\ncurve: x25519\n"
        f"static-public-key: {responder.hex()}\nbackup-token: none\nbackup-attestation: none\nbackup-public-key: none\nonion-address: {onion(service)}\n"
        f"client-auth-public-key: descriptor:x25519:{client_auth}\nsuites: AESGCM_SHA256 ChaChaPoly_BLAKE2s\n"
    )
    out["card"] = card(body)
    out["card_with_kem"] = card(body.replace("card 3\n", "card 4\n") + "kem: ML-KEM-768\n")
    key_print = hashlib.sha256(b"claviger key fingerprint 1\n" + f"x25519:{responder.hex()}".encode()).digest()[:16]
    out["key_fingerprint"] = key_print.hex()

    # Section 9: a pre-shared key.
    secret = bytes(range(32))
    body = f"claviger pre-shared key 1\nkey: {secret.hex()}\n"
    tag = hmac.digest(secret, b"claviger pre-shared key check 1", "sha256")
    out["preshared_key"] = {
        "text": f"{body}checksum: {hashlib.sha256(body.encode()).hexdigest()[:16]}\n",
        "check": " ".join(tag[at : at + 2].hex() for at in range(0, 8, 2)),
    }
    return out


if __name__ == "__main__":
    made = make()
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(json.dumps(made, indent=1) + "\n")
    same = json.loads(FILE.read_text()) == made
    print("the same" if same else "claviger.json differs from the document")
    sys.exit(0 if same else 1)
