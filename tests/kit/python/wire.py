"""What every peer does around its Noise library: arguments, framing, the exchange after the handshake.

A message, of the handshake or after it, is its length (2 bytes, big-endian) and the message (at most 65535 bytes).
Standard input: the static private key, 64 hex digits and a newline.
Standard output: `listening PORT`, unless told to connect; `handshake HASH` in hex; `done`.
Any failure is a traceback on standard error and exit status 1. No peer lives longer than two minutes.
"""
import argparse
import hashlib
import signal
import socket
import struct
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PAYLOADS = (100, 1, 60000)
WAIT = 30  # seconds for one socket operation
LIFE = 120  # seconds for the whole peer
XK, NN, KEM, PSK = 3, 4, 0x10, 0x20  # of a kind byte
CIPHERTEXT = 1088


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("initiator", "responder"))
    parser.add_argument("protocol", help="Noise protocol name")
    parser.add_argument("--prologue", type=bytes.fromhex, default=b"", help="hex")
    parser.add_argument("--remote-public", type=bytes.fromhex, help="the other's static public key, hex")
    parser.add_argument("--kind", type=int, default=0, help="what is mixed in: Claviger's kind byte, section 3 of its wire format")
    parser.add_argument("--secret", type=bytes.fromhex, help="the pre-shared key, hex; with NN the psk itself")
    parser.add_argument("--connect", type=int, metavar="PORT", help="connect to this port of 127.0.0.1; else listen")
    args = parser.parse_args()
    args.initiator = args.role == "initiator"
    args.private = bytes.fromhex(sys.stdin.readline().strip())
    return args


def say(*words):
    print(*words, flush=True)


class Wire:
    def __init__(self, port):
        if port is not None:
            self.socket = socket.create_connection(("127.0.0.1", port), WAIT)
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.settimeout(WAIT)
                say("listening", listener.getsockname()[1])
                self.socket, _ = listener.accept()
        self.socket.settimeout(WAIT)

    def send(self, message):
        self.socket.sendall(struct.pack(">H", len(message)) + message)

    def receive(self):
        return self.exactly(struct.unpack(">H", self.exactly(2))[0])

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError(f"connection closed after {len(data)} of {count} bytes")
            data += part
        return data


def payload(length):
    return bytes(i * 7 & 255 for i in range(length))


class Mixing:
    """ML-KEM-768 and a pre-shared key beside a Noise handshake, as section 5 of Claviger's wire format has them."""

    def __init__(self, noise, args):
        self.noise, self.args, self.number = noise, args, 0
        self.kem = args.kind & KEM
        # In front of message 2, whose payload comes too late; XK's does not.
        self.front = CIPHERTEXT if self.kem and args.kind & 15 != XK else 0
        self.ek = self.ct = b""
        if args.kind == NN:
            noise.mix(args.secret)
        elif args.kind & PSK and not self.kem:
            self.mix(bytes(32))

    def mix(self, shared):
        transcript = hashlib.sha256(self.ek + self.ct).digest() if self.kem else bytes(32)
        secrets = shared + (self.args.secret if self.args.kind & PSK else bytes(32))
        info = bytes([self.args.kind]) + transcript
        self.noise.mix(HKDF(hashes.SHA256(), 32, b"claviger psk 1", info).derive(secrets))

    def write(self):
        front, payload = b"", b""
        if self.kem and self.number == 0:
            self.key = MLKEM768PrivateKey.generate()
            payload = self.ek = self.key.public_key().public_bytes_raw()
        elif self.kem and self.number == 1:
            front, payload = (self.ct, b"") if self.front else (b"", self.ct)
        self.number += 1
        return front + self.noise.write(payload)

    def read(self, message):
        if self.number == 1 and self.front:
            self.ct, message = message[: self.front], message[self.front :]
            self.mix(self.key.decapsulate(self.ct))
        payload = self.noise.read(message)
        if self.kem and self.number == 0:
            self.ek = payload
            shared, self.ct = MLKEM768PublicKey.from_public_bytes(payload).encapsulate()
            self.mix(shared)
        elif self.kem and self.number == 1 and not self.front:
            self.ct = payload
            self.mix(self.key.decapsulate(payload))
        elif payload:
            raise ValueError(f"a payload of {len(payload)} bytes")
        self.number += 1


def run(start):
    """`start(args)` gives an object with `write(payload) -> bytes`, `read(bytes) -> payload`, `mix(psk)` (before the message that mixes it in), `finished`,
    `hash() -> bytes`, `encrypt(bytes) -> bytes` and `decrypt(bytes) -> bytes`."""
    signal.alarm(LIFE)
    args = arguments()
    noise = start(args)
    mixing = Mixing(noise, args)
    wire = Wire(args.connect)

    writing = args.initiator
    while not noise.finished:
        if writing:
            wire.send(mixing.write())
        else:
            mixing.read(wire.receive())
        writing = not writing
    say("handshake", noise.hash().hex())

    for length in PAYLOADS:
        if args.initiator:
            wire.send(noise.encrypt(payload(length)))
        data = b""
        while len(data) < length:
            data += noise.decrypt(wire.receive())
        if data != payload(length):
            raise ValueError(f"payload of {length} bytes came wrong")
        if not args.initiator:
            wire.send(noise.encrypt(data))
    say("done")
