"""What every peer does around its Noise library: arguments, framing, the exchange after the handshake.

A message, of the handshake or after it, is its length (2 bytes, big-endian) and the message (at most 65535 bytes).
Standard input: the static private key, 64 hex digits and a newline.
Standard output: `listening PORT`, unless told to connect; `handshake HASH` in hex; `done`.
Any failure is a traceback on standard error and exit status 1. No peer lives longer than two minutes.
"""
import argparse
import signal
import socket
import struct
import sys

PAYLOADS = (100, 1, 60000)
WAIT = 30  # seconds for one socket operation
LIFE = 120  # seconds for the whole peer


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("initiator", "responder"))
    parser.add_argument("protocol", help="Noise protocol name")
    parser.add_argument("--prologue", type=bytes.fromhex, default=b"", help="hex")
    parser.add_argument("--remote-public", type=bytes.fromhex, help="the other's static public key, hex")
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


def run(start):
    """`start(args)` gives an object with `write() -> bytes`, `read(bytes)`, `finished`, `hash() -> bytes`,
    `encrypt(bytes) -> bytes` and `decrypt(bytes) -> bytes`."""
    signal.alarm(LIFE)
    args = arguments()
    noise = start(args)
    wire = Wire(args.connect)

    writing = args.initiator
    while not noise.finished:
        if writing:
            wire.send(noise.write())
        else:
            noise.read(wire.receive())
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
