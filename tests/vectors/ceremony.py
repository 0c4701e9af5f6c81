#!/usr/bin/env python3
"""Recomputes ceremony.json from docs/wire-format.md ("Texts of the ceremony") alone, with Python's standard library. Exits 0 when all agree.

    python3 tests/vectors/ceremony.py

`--write` makes the file anew; a unit test (src/ceremony/vectors.rs) holds the library to the same file. The curves are written out from RFC 7748 and
SEC 1: slow, not constant time, and fit for nothing else.
"""
import base64
import hashlib
import hmac
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("ceremony.json")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hmac256(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def hkdf32(salt, material, info):
    """RFC 5869, one block of output."""
    return hmac256(hmac256(salt, material), info + b"\x01")


def x25519(scalar, u):
    """RFC 7748, section 5."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | 1 << 254
    x1 = int.from_bytes(u, "little") & ~(1 << 255)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        e = aa - bb
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def p256(scalar, point=None):
    """SEC 1, section 2.2.1: uncompressed points; the generator's multiple without a point."""
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    g = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
         0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)

    def add(a, b):
        if a is None or b is None:
            return a or b
        if a[0] == b[0]:
            if (a[1] + b[1]) % p == 0:
                return None
            slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, p)
        else:
            slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, p)
        x = (slope * slope - a[0] - b[0]) % p
        return x, (slope * (a[0] - x) - a[1]) % p

    at = g if point is None else (int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big"))
    total, k = None, int.from_bytes(scalar, "big")
    while k:
        if k & 1:
            total = add(total, at)
        at, k = add(at, at), k >> 1
    return b"\x04" + total[0].to_bytes(32, "big") + total[1].to_bytes(32, "big")


class X25519:
    name = "x25519"
    public = staticmethod(lambda secret: x25519(secret, bytes([9]) + bytes(31)))
    agree = staticmethod(x25519)


class P256:
    name = "p256"
    public = staticmethod(p256)
    agree = staticmethod(lambda secret, point: p256(secret, point)[1:33])


def with_checksum(body):
    return f"{body}checksum: {sha256(body.encode())[:8].hex()}\n"


def body_of(text):
    """All before the last line."""
    return text[: text.rindex("\n", 0, -1) + 1]


def card(name, curve, secret, number, backup=None, kem=False):
    onion_key = bytes([number]) * 32
    check = hashlib.sha3_256(b".onion checksum" + onion_key + b"\x03").digest()[:2]
    onion = base64.b32encode(onion_key + check + b"\x03").decode().lower()
    client_auth = base64.b32encode(bytes([number + 100]) * 32).decode().rstrip("=")
    backup_token, backup_key = ("none", "none") if backup is None else ("hardware", curve.public(backup).hex())
    return with_checksum(
        f"claviger identity card {4 if kem else 3}\nidentifier: {name}\nrole: cosigner\ntoken: hardware\nattestation: none\n"
        f"curve: {curve.name}\nstatic-public-key: {curve.public(secret).hex()}\n"
        f"backup-token: {backup_token}\nbackup-attestation: none\nbackup-public-key: {backup_key}\n"
        f"onion-address: {onion}.onion\nclient-auth-public-key: descriptor:x25519:{client_auth}\n"
        "suites: ChaChaPoly_BLAKE2s\n" + ("kem: ML-KEM-768\n" if kem else "")
    )


def digest_of(text):
    return sha256(body_of(text).encode())


def word_numbers(digest, count):
    bits = int.from_bytes(digest, "big")
    return [bits >> (8 * len(digest) - 11 * (at + 1)) & 0x7FF for at in range(count)]


def make():
    secret = lambda number: bytes([number]) * 32
    out = {}
    plan = bytes(range(16))
    for curve in (X25519, P256):
        wallet = card("wallet", curve, secret(1), 1)
        cosigner = card("cosigner", curve, secret(2), 2, backup=secret(3))
        vector = {"wallet": wallet, "cosigner": cosigner}

        challenge = with_checksum(
            f"claviger challenge 1\nchallenge: {bytes(range(16, 32)).hex()}\nplan: {plan.hex()}\nverifier: wallet\n"
            f"curve: {curve.name}\nephemeral-public-key: {curve.public(secret(4)).hex()}\n"
            "issued: 1795229250\nexpires: 1795232850\n"
        )
        vector["challenge_secret"] = secret(4).hex()
        vector["challenge"] = challenge
        for place, key in (("primary", secret(2)), ("backup", secret(3))):
            agreed = curve.agree(key, curve.public(secret(4)))
            mac_key = hkdf32(b"claviger proof 1", agreed, sha256(challenge.encode()))
            message = f"claviger proof 1\ncosigner\n{place}\n".encode() + digest_of(cosigner)
            vector[f"proof_{place}"] = with_checksum(
                f"claviger proof 1\nchallenge: {bytes(range(16, 32)).hex()}\nprover: cosigner\nkey: {place}\n"
                f"mac: {hmac256(mac_key, message).hex()}\n"
            )

        # The cosigner goes on with another key, and offers ML-KEM-768 from now on; its backup key vouches.
        following = card("cosigner", curve, secret(5), 5, kem=True)
        body = f"claviger succession 1\nformer: {digest_of(cosigner).hex()}\nby: backup\nuntil: 1795232850\n"
        body += "".join(f"card: {line}\n" for line in following.splitlines())
        agreed = curve.agree(secret(3), curve.public(secret(1)))
        mac_key = hkdf32(b"claviger succession 1", agreed, b"wallet\nprimary\n")
        vector["next"] = following
        vector["succession_agreed"] = agreed.hex()
        vector["succession"] = with_checksum(
            f"{body}macs: 1\nmac: wallet primary {hmac256(mac_key, body.encode()).hex()}\n"
        )

        text = "# any text\n"
        cards = digest_of(cosigner) + digest_of(wallet)
        label = b"claviger ceremony phrase 1\n"
        planned = sha256(label, sha256(b"claviger plan 1\n" + text.encode()), cards)
        vector["phrase"] = {
            "plan": text,
            "with_plan": word_numbers(planned, 12),
            "without": word_numbers(sha256(label, bytes(32), cards), 12),
        }
        out[curve.name] = vector
    return out


if __name__ == "__main__":
    # RFC 7748, section 5.2, and NIST's generator times 2, so that a slip here is not taken for one in the library.
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert p256(b"\x02").hex().startswith("047cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978")
    made = make()
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(json.dumps(made, indent=1) + "\n")
    same = json.loads(FILE.read_text()) == made
    print("the same" if same else "ceremony.json differs from the document")
    sys.exit(0 if same else 1)
