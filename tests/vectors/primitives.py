"""X25519, P-256, ChaCha20-Poly1305 and AES-256-GCM from their standards, for vectors only: short and slow, and not in constant time."""
import hmac


def x25519(scalar, point=bytes([9]) + bytes(31)):
    """RFC 7748, section 5."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & (2**254 - 8) | 2**254
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for at in reversed(range(255)):
        bit = k >> at & 1
        if swap ^ bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % p, u * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


P = 2**256 - 2**224 + 2**192 + 2**96 - 1
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def p256(scalar, point=G):
    """SEC 1 on secp256r1: the multiple of an affine point, affine."""

    def add(one, other):
        if one is None or other is None:
            return one or other
        (x1, y1), (x2, y2) = one, other
        if x1 == x2 and (y1 + y2) % P == 0:
            return None
        if one == other:
            slope = 3 * (x1 * x1 - 1) * pow(2 * y1, -1, P)
        else:
            slope = (y2 - y1) * pow(x2 - x1, -1, P)
        x3 = (slope * slope - x1 - x2) % P
        return x3, (slope * (x1 - x3) - y1) % P

    k, result = int.from_bytes(scalar, "big"), None
    while k:
        if k & 1:
            result = add(result, point)
        point, k = add(point, point), k >> 1
    return result


class X25519:
    name, length = "25519", 32

    def public(private):
        return x25519(private)

    def agree(private, public):
        return x25519(private, public)


class P256:
    name, length = "P256", 65

    def public(private):
        x, y = p256(private)
        return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")

    def agree(private, public):
        point = int.from_bytes(public[1:33], "big"), int.from_bytes(public[33:], "big")
        return p256(private, point)[0].to_bytes(32, "big")


class ChaChaPoly:
    """RFC 8439."""

    def nonce(counter):
        return bytes(4) + counter.to_bytes(8, "little")

    def block(key, counter, nonce):
        words = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
        words += [int.from_bytes(key[at : at + 4], "little") for at in range(0, 32, 4)]
        words += [counter] + [int.from_bytes(nonce[at : at + 4], "little") for at in range(0, 12, 4)]
        state = list(words)

        def quarter(a, b, c, d):
            for one, other, to, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[one] = (state[one] + state[other]) & 0xFFFFFFFF
                mixed = state[to] ^ state[one]
                state[to] = (mixed << by | mixed >> (32 - by)) & 0xFFFFFFFF

        for _ in range(10):
            for at in range(4):
                quarter(at, at + 4, at + 8, at + 12)
            for at in range(4):
                quarter(at, (at + 1) % 4 + 4, (at + 2) % 4 + 8, (at + 3) % 4 + 12)
        return b"".join(((a + b) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in zip(words, state))

    def seal(key, nonce, ad, text):
        stream = b"".join(ChaChaPoly.block(key, 1 + at, nonce) for at in range((len(text) + 63) // 64))
        sealed = bytes(a ^ b for a, b in zip(text, stream))
        one_time = ChaChaPoly.block(key, 0, nonce)
        r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
        padded = ad + bytes(-len(ad) % 16) + sealed + bytes(-len(sealed) % 16)
        padded += len(ad).to_bytes(8, "little") + len(sealed).to_bytes(8, "little")
        total = 0
        for at in range(0, len(padded), 16):
            total = (total + int.from_bytes(padded[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
        tag = (total + int.from_bytes(one_time[16:32], "little")) % 2**128
        return sealed + tag.to_bytes(16, "little")


def times(a, b):
    """In GF(2^8) of AES."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = a << 1 ^ (0x11B if a & 0x80 else 0), b >> 1
    return product


def sbox():
    out = []
    for byte in range(256):
        inverse = next((x for x in range(256) if times(byte, x) == 1), 0)
        spread = inverse
        for by in range(1, 5):
            spread ^= inverse << by & 0xFF | inverse >> (8 - by)
        out.append(spread ^ 0x63)
    return out


SBOX = sbox()


class AESGCM:
    """FIPS 197 and NIST SP 800-38D, AES-256 with nonces of 12 bytes."""

    def nonce(counter):
        return bytes(4) + counter.to_bytes(8, "big")

    def schedule(key):
        words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
        factor = 1
        for at in range(8, 60):
            word = words[-1]
            if at % 8 == 0:
                word = [SBOX[byte] for byte in word[1:] + word[:1]]
                word[0] ^= factor
                factor = times(factor, 2)
            elif at % 8 == 4:
                word = [SBOX[byte] for byte in word]
            words.append([a ^ b for a, b in zip(words[-8], word)])
        return [sum(words[at : at + 4], []) for at in range(0, 60, 4)]

    def encrypt(keys, block):
        state = [a ^ b for a, b in zip(block, keys[0])]
        for number, key in enumerate(keys[1:], 1):
            state = [SBOX[state[(at + at % 4 * 4) % 16]] for at in range(16)]
            if number < 14:
                columns = [state[at : at + 4] for at in range(0, 16, 4)]
                state = [
                    times(c[at], 2) ^ times(c[(at + 1) % 4], 3) ^ c[(at + 2) % 4] ^ c[(at + 3) % 4]
                    for c in columns
                    for at in range(4)
                ]
            state = [a ^ b for a, b in zip(state, key)]
        return bytes(state)

    def seal(key, nonce, ad, text):
        keys = AESGCM.schedule(key)
        h = int.from_bytes(AESGCM.encrypt(keys, bytes(16)), "big")
        blocks = (len(text) + 15) // 16
        stream = b"".join(AESGCM.encrypt(keys, nonce + (at + 2).to_bytes(4, "big")) for at in range(blocks))
        sealed = bytes(a ^ b for a, b in zip(text, stream))
        padded = ad + bytes(-len(ad) % 16) + sealed + bytes(-len(sealed) % 16)
        padded += (8 * len(ad)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
        total = 0
        for at in range(0, len(padded), 16):
            x, v, total = total ^ int.from_bytes(padded[at : at + 16], "big"), h, 0
            for bit in range(128):
                if x >> (127 - bit) & 1:
                    total ^= v
                v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        tag = total ^ int.from_bytes(AESGCM.encrypt(keys, nonce + bytes([0, 0, 0, 1])), "big")
        return sealed + tag.to_bytes(16, "big")


def hkdf(secret, salt, info, length=32):
    """RFC 5869 with SHA-256, one block."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def hmac_of(hash_name, key, data):
    return hmac.digest(key, data, hash_name)
