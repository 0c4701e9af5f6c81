"""The wire of Claviger, version 2, on the library noiseprotocol: knock, handshake, records, streams.

Written from docs/wire-format.md alone, so that what it leaves open is found. It speaks KK and XK on curve 25519, with and without ML-KEM-768 and
a pre-shared key, and resumes by NN. Whatever breaks a rule is an exception: this end never shrugs. Three threads to a session (reading, writing, the program's own),
so that neither direction waits for the other.
"""
import collections
import copy
import hashlib
import hmac
import queue
import re
import socket
import struct
import threading
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from noise.connection import Keypair, NoiseConnection

VERSION = 2
KK, XK, NN = 1, 3, 4
KEM, PSK = 0x10, 0x20
NAMES = {KK: "KK", XK: "XK"}
P, TAG, EK, CT = 32, 16, 1184, 1088
HEAD = 26  # bytes of a knock packet before its Noise message
PATIENCE = 30  # seconds for one wait


class WireError(Exception):
    """The other end broke a rule."""


def need(condition, what):
    if not condition:
        raise WireError(what)


def hkdf(salt, secret, info, length=32):
    return HKDF(hashes.SHA256(), length, salt or None, info).derive(secret)


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Frames:
    """Bodies behind their length (2 bytes)."""

    def __init__(self, pipe):
        self.socket = pipe
        self.input = pipe.makefile("rb", buffering=1 << 16)

    def send(self, *bodies):
        self.socket.sendall(b"".join(struct.pack(">H", len(body)) + body for body in bodies))

    def receive(self, lengths=range(0, 65536)):
        """The next body; None when the pipe has ended between frames."""
        head = self.input.read(2)
        if not head:
            return None
        need(len(head) == 2, "the pipe ends inside a frame's length")
        (length,) = struct.unpack(">H", head)
        need(length in lengths, f"a frame of {length} bytes, expected {lengths}")
        body = self.input.read(length)
        need(len(body) == length, "the pipe ends inside a frame")
        return body

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster
        self.socket.close()

    def expect(self, length):
        body = self.receive(range(length, length + 1))
        need(body is not None, "the pipe has ended in place of a handshake message")
        return body


class Ends:
    """What both ends hold beforehand. `initiator`, `responder`: (identifier, role, static public key)."""

    def __init__(self, initiator, responder, onion, port, suite):
        self.initiator, self.responder = initiator, responder
        self.onion, self.port, self.suite = onion, port, suite

    def knock_mac(self, head, message):
        key = hashlib.blake2s(b"claviger knock key 1" + b"25519" + self.initiator[2] + self.responder[2]).digest()
        digest = hashlib.blake2s(b"claviger knock 1" + head + message).digest()
        return hashlib.blake2s(digest, key=key, digest_size=16).digest()

    def knock(self, kind, now, message):
        head = bytes([VERSION, kind]) + struct.pack(">Q", now)
        return head + self.knock_mac(head, message) + message

    def opened_knock(self, packet):
        """Kind, time and Noise message of a knock packet."""
        version, kind = packet[0], packet[1]
        need(version == VERSION, f"version {version}")
        (now,) = struct.unpack(">Q", packet[2:10])
        need(abs(now - milliseconds()) <= 120_000, "a knock outside the window")
        need(hmac.compare_digest(self.knock_mac(packet[:10], packet[HEAD:]), packet[10:HEAD]), "a knock of nobody")
        return kind, now, packet[HEAD:]

    def prologue(self, kind):
        ends = (*self.initiator[:2], *self.responder[:2])
        names = b"".join(bytes([len(name)]) + name.encode() for name in ends)
        return b"claviger" + bytes([VERSION, kind]) + names + self.onion + struct.pack(">H", self.port)


def milliseconds():
    return time.time_ns() // 1_000_000


class Established:
    """A finished handshake: two cipher states, the hash, and the first link of the chain by which the session is resumed."""

    def __init__(self, noise, kind, now, is_initiator, first=None):
        protocol = noise.noise_protocol
        self.sending, self.receiving = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        self.hash, self.kind, self.is_initiator = noise.get_handshake_hash(), kind, is_initiator
        # The first (full) handshake of the family: hash, kind byte, time.
        self.first = first or (self.hash, kind, now)
        keys = (self.sending.k, self.receiving.k) if is_initiator else (self.receiving.k, self.sending.k)
        self.link = hkdf(self.hash, b"".join(keys), b"claviger resumption 1")


def noise_of(name, ends, is_initiator, private, remote, prologue, psk):
    noise = NoiseConnection.from_name(f"Noise_{name}_25519_{ends.suite}".encode())
    noise.set_as_initiator() if is_initiator else noise.set_as_responder()
    if private:
        noise.set_keypair_from_private_bytes(Keypair.STATIC, private)
    if remote:
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
    if psk:
        noise.set_psks(psks=[psk])
    noise.set_prologue(prologue)
    noise.start_handshake()
    return noise


def full_noise(kind, ends, is_initiator, private):
    pattern, mixed = kind & 0x0F, kind & 0xF0
    need(pattern in NAMES and mixed & ~(KEM | PSK) == 0, f"kind {kind:#x}")
    name = NAMES[pattern] + ({KK: "psk2", XK: "psk3"}[pattern] if mixed else "")
    remote = (ends.responder if is_initiator else ends.initiator)[2]
    known = remote if is_initiator or pattern == KK else None
    # What is mixed in is known later: `mix` puts it in place of these zero bytes, before the message that ends with `psk`.
    return noise_of(name, ends, is_initiator, private, known, ends.prologue(kind), bytes(32) if mixed else None)


def mix(noise, kind, kem, psk, ek, ct):
    if kind & 0xF0:
        transcript = hashlib.sha256(ek + ct).digest() if kind & KEM else bytes(32)
        mixed = hkdf(b"claviger psk 1", (kem or bytes(32)) + (psk or bytes(32)), bytes([kind]) + transcript)
        noise.noise_protocol.psks[0] = mixed


def initiate(frames, ends, kind, private, psk=None):
    pattern, with_kem = kind & 0x0F, bool(kind & KEM)
    noise = full_noise(kind, ends, True, private)
    secret = MLKEM768PrivateKey.generate() if with_kem else None
    ek = secret.public_key().public_bytes_raw() if with_kem else b""
    now = milliseconds()
    frames.send(ends.knock(kind, now, bytes(noise.write_message(ek))))
    body = frames.expect(P + TAG + (CT if with_kem else 0))
    shared, ct = None, b""
    if pattern == KK:
        # The ciphertext stands before the Noise message.
        if with_kem:
            ct, body = body[:CT], body[CT:]
            shared = secret.decapsulate(ct)
        mix(noise, kind, shared, psk, ek, ct)
        need(noise.read_message(body) == b"", "a payload in message 2")
        established = Established(noise, kind, now, True)
        confirm(frames, established)
        return established
    ct = bytes(noise.read_message(body))
    need(len(ct) == (CT if with_kem else 0), "a payload of another length in message 2")
    shared = secret.decapsulate(ct) if with_kem else None
    mix(noise, kind, shared, psk, ek, ct)
    frames.send(bytes(noise.write_message()))
    return Established(noise, kind, now, True)


def respond(frames, ends, kind, private, psk=None):
    with_kem = bool(kind & KEM)
    packet = frames.receive(range(HEAD, HEAD + 4097))
    came, now, message = ends.opened_knock(packet)
    need(came == kind, f"a knock of kind {came:#x}, expected {kind:#x}")
    need(len(message) == P + TAG + (EK if with_kem else 0), "message 1 of another length")
    noise = full_noise(kind, ends, False, private)
    ek = bytes(noise.read_message(message))
    shared, ct = MLKEM768PublicKey.from_public_bytes(ek).encapsulate() if with_kem else (None, b"")
    if kind & 0x0F == KK:
        mix(noise, kind, shared, psk, ek, ct)
        frames.send(ct + bytes(noise.write_message()))
        established = Established(noise, kind, now, False)
        confirmed(frames, established)
        return established
    frames.send(bytes(noise.write_message(ct)))
    mix(noise, kind, shared, psk, ek, ct)
    state = noise.noise_protocol.handshake_state
    need(noise.read_message(frames.expect(P + TAG + TAG)) == b"", "a payload in message 3")
    need(state.rs.public_bytes == ends.initiator[2], "another static key than that of the peer who knocked")
    return Established(noise, kind, now, False)


def confirm(frames, established):
    """The initiator's first record, which is empty."""
    frames.send(established.sending.encrypt_with_ad(None, b""))


def confirmed(frames, established):
    confirmation = frames.expect(TAG)
    need(established.receiving.decrypt_with_ad(None, confirmation) == b"", "a confirmation that is not empty")


class Chain:
    """The links by which the initiator of a session resumes it. Each is used once."""

    def __init__(self, established):
        self.first, self.link = established.first, established.link

    def next(self):
        """The identifier and the pre-shared key of this link; it moves to the next."""
        derive = lambda what, length: hkdf(b"", self.link, b"claviger resumption " + what + b" 1", length)
        name, psk, self.link = derive(b"id", 16), derive(b"psk", 32), derive(b"next", 32)
        return name, psk

    def prologue(self, ends):
        hash, kind, now = self.first
        return ends.prologue(NN) + hash + bytes([kind]) + struct.pack(">Q", now) + ends.initiator[2] + ends.responder[2]


def resume(frames, ends, chain):
    """Up to the answer. It is to be confirmed; from now on only its own chain is good for anything."""
    name, psk = chain.next()
    noise = noise_of("NNpsk0", ends, True, None, None, chain.prologue(ends), psk)
    now = milliseconds()
    frames.send(ends.knock(NN, now, name + bytes(noise.write_message())))
    need(noise.read_message(frames.expect(P + TAG)) == b"", "a payload in message 2")
    return Established(noise, NN, now, True, chain.first)


def answer_resumption(frames, ends, chains):
    """Up to the answer, which the other end is to confirm. `chains` become what the other end may come by next: that by which it came, and that which begins now."""
    came, now, message = ends.opened_knock(frames.receive(range(HEAD, HEAD + 4097)))
    need(came == NN and len(message) == 16 + P + TAG, f"a knock of kind {came:#x} and {len(message)} bytes")
    chain, psk = linked(chains, message[:16])
    noise = noise_of("NNpsk0", ends, False, None, None, chain.prologue(ends), psk)
    need(noise.read_message(message[16:]) == b"", "a payload in message 1")
    answer = bytes(noise.write_message())
    established = Established(noise, NN, now, False, chain.first)
    chains[:] = [chain, Chain(established)]
    frames.send(answer)
    return established


def linked(chains, sought):
    """The chain, behind the link of this identifier, and the link's pre-shared key."""
    for chain in chains:
        chain = copy.copy(chain)
        for _ in range(8):
            name, psk = chain.next()
            if hmac.compare_digest(name, sought):
                return chain, psk
    raise WireError("a resumption by no link of a chain")


# ---- records ------------------------------------------------------------------------------------------------------------------------------

STREAMS, CONTROL = 0, 1
REKEY = 65536


def counted(cipher):
    """After the record with nonce n, n + 1 divisible by 65536, the key is replaced; the nonce counts on."""
    if cipher.n % REKEY == 0:
        cipher.rekey()


class Records:
    def __init__(self, frames, established):
        self.frames, self.sending, self.receiving = frames, established.sending, established.receiving

    def seal(self, plaintext):
        record = self.sending.encrypt_with_ad(None, plaintext)
        counted(self.sending)
        return record

    def open(self):
        """The next plaintext; None when the pipe has ended."""
        record = self.frames.receive(range(TAG, 65536))
        if record is None:
            return None
        plaintext = self.receiving.decrypt_with_ad(None, record)
        counted(self.receiving)
        return plaintext


# ---- streams ------------------------------------------------------------------------------------------------------------------------------

PING, PONG, OPEN, END, RESET, DRAIN, CLOSE = range(1, 8)
LENGTHS = {PING: 8, PONG: 8, END: 12, RESET: 8, DRAIN: 1, CLOSE: 1}
DROPPED, NO_SERVICE, NOT_ALLOWED, STREAM_LIMIT, DRAINING, INTERNAL = range(6)
APPLICATION = 256
DONE = 0
DATA, WINDOW, YPING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
INITIAL_WINDOW = 256 * 1024
MAX_OPENS = 256  # that wait for their streams
SERVICE = re.compile(rb"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class StreamReset(Exception):
    """The other end has reset the stream; `reason` is its number."""

    def __init__(self, reason):
        super().__init__(f"the stream was reset, reason {reason}")
        self.reason = reason


class Closed(Exception):
    """The session has ended."""


class Stream:
    """One stream. All its fields are guarded by the session's lock."""

    def __init__(self, session, id, service):
        self.session, self.id, self.service = session, id, service
        self.input, self.read_bytes, self.came = bytearray(), 0, 0
        self.fin = False
        self.end = None  # how many bytes the other end says it sent
        self.reason = None
        self.window, self.credit, self.granted = INITIAL_WINDOW, INITIAL_WINDOW, 0
        self.sent, self.finished = 0, False

    def write(self, data):
        session = self.session
        view = memoryview(data)
        while view:
            with session.changed:
                session.wait(lambda: self.reason is not None or self.window > 0)
                self.check()
                part = bytes(view[: min(self.window, 16 * 1024)])
                self.window -= len(part)
                self.sent += len(part)
                session.yamux(DATA, 0, self.id, len(part), part)
            view = view[len(part) :]

    def finish(self):
        """The clean end of this direction: END, and yamux's FIN."""
        with self.session.changed:
            self.check()
            self.finished = True
            self.session.control(END, struct.pack(">IQ", self.id, self.sent))
            self.session.yamux(DATA, FIN, self.id, 0)

    def read(self, most=1 << 16):
        """Bytes; none at the proper end, which is FIN, END, and as many bytes as END says."""
        session = self.session
        with session.changed:
            session.wait(lambda: self.reason is not None or self.input or (self.fin and self.end is not None))
            if not self.input:
                self.check()
                need(self.end == self.read_bytes, f"END says {self.end} bytes, and {self.read_bytes} came")
                return b""
            data = bytes(self.input[:most])
            del self.input[: len(data)]
            self.read_bytes += len(data)
            self.granted += len(data)
            if self.granted >= INITIAL_WINDOW // 2 and not self.fin:
                session.yamux(WINDOW, 0, self.id, self.granted)
                self.credit += self.granted
                self.granted = 0
            return data

    def read_all(self):
        return b"".join(iter(self.read, b""))

    def reset(self, reason):
        with self.session.changed:
            self.session.control(RESET, struct.pack(">II", self.id, reason))
            self.session.yamux(WINDOW, RST, self.id, 0)
            self.session.streams.pop(self.id, None)

    def check(self):
        if self.reason is not None:
            raise StreamReset(self.reason)


class Session:
    """A session: streams, and the control messages beside them."""

    def __init__(self, frames, established):
        # Silence is nothing new in a session; the handshake had a deadline.
        frames.socket.settimeout(None)
        self.frames, self.records = frames, Records(frames, established)
        self.is_initiator = established.is_initiator
        self.changed = threading.Condition(threading.RLock())
        self.streams, self.incoming = {}, collections.deque()
        self.opens = {}  # id: service, of OPENs whose stream has not come
        self.next_id = 1 if self.is_initiator else 2
        self.last_id = 0  # the highest of the other end's
        self.yamux_input = bytearray()
        self.pong, self.draining, self.close_reason = None, None, None
        self.close_sent = False
        self.empties = 0
        self.failure, self.gone = None, False
        self.output = queue.Queue()
        for work in (self.reading, self.writing):
            threading.Thread(target=work, daemon=True).start()

    def wait(self, ready, patience=PATIENCE):
        def settled():
            return ready() or self.failure or self.gone

        need(self.changed.wait_for(settled, patience), "nothing came for too long")
        if not ready():
            raise self.failure or Closed(f"the session has ended: {self.close_reason}")

    # ---- out

    def control(self, kind, body):
        self.output.put(bytes([CONTROL, kind]) + body)

    def yamux(self, kind, flags, id, length, data=b""):
        self.output.put(bytes([STREAMS]) + struct.pack(">BBHII", 0, kind, flags, id, length) + data)

    def writing(self):
        while (plaintext := self.output.get()) is not None:
            try:
                self.frames.send(self.records.seal(plaintext))
            except OSError as error:
                self.fail(error)
                return

    def open(self, service):
        with self.changed:
            need(self.draining is None, "the session takes on no new streams")
            id, self.next_id = self.next_id, self.next_id + 2
            stream = self.streams[id] = Stream(self, id, service)
            self.control(OPEN, struct.pack(">IB", id, len(service)) + service.encode())
            self.yamux(DATA, SYN, id, 0)
            return stream

    def accept(self):
        with self.changed:
            self.wait(lambda: self.incoming)
            return self.incoming.popleft()

    def ping(self, token):
        """Asks for a sign of life, 8 bytes, and waits for it."""
        with self.changed:
            self.pong = None
            self.control(PING, token)
            self.wait(lambda: self.pong == token)

    def drain(self, reason):
        self.control(DRAIN, bytes([reason]))

    # ---- in

    def fail(self, error):
        with self.changed:
            self.failure = self.failure or error
            self.changed.notify_all()

    def reading(self):
        try:
            while (plaintext := self.records.open()) is not None:
                with self.changed:
                    self.record(plaintext)
                    self.changed.notify_all()
            with self.changed:
                need(self.empties, "the pipe was cut")
                self.gone = True
                self.changed.notify_all()
        except Exception as error:
            self.fail(error)

    def record(self, plaintext):
        if not plaintext:
            need(self.close_reason is not None, "an end before CLOSE")
            self.empties += 1
            need(self.empties <= 2, "a third empty record")
            return
        need(self.close_reason is None, "a record after CLOSE")
        kind, body = plaintext[0], plaintext[1:]
        if kind == STREAMS:
            self.yamux_input += body
            self.frames_of_streams()
        elif kind == CONTROL:
            need(body, "a record of no control message")
            while body:
                body = self.message(body)
        else:
            raise WireError(f"a record of kind {kind}")

    def message(self, body):
        """Takes one control message off `body`."""
        kind, body = body[0], body[1:]
        if kind == OPEN:
            need(len(body) >= 5, "a cut OPEN")
            id, length = struct.unpack(">IB", body[:5])
            service, rest = body[5 : 5 + length], body[5 + length :]
            need(len(service) == length and SERVICE.fullmatch(service), f"an OPEN for {service}")
            need(id % 2 == (0 if self.is_initiator else 1) and id > self.last_id, f"an OPEN for stream {id}")
            self.last_id, self.opens[id] = id, service.decode()
            need(len(self.opens) <= MAX_OPENS, "too many OPENs without their streams")
            return rest
        need(kind in LENGTHS, f"control message {kind}")
        length = LENGTHS[kind]
        body, rest = body[:length], body[length:]
        need(len(body) == length, f"a cut control message {kind}")
        if kind == PING:
            self.control(PONG, body)
        elif kind == PONG:
            self.pong = body
        elif kind == END:
            id, count = struct.unpack(">IQ", body)
            # Of a stream that this end has reset meanwhile nothing matters any more.
            if stream := self.streams.get(id):
                need(stream.end is None, f"a second END for stream {id}")
                stream.end = count
        elif kind == RESET:
            id, reason = struct.unpack(">II", body)
            self.opens.pop(id, None)
            if stream := self.streams.get(id):
                stream.reason = reason
        elif kind == DRAIN:
            self.draining = body[0]
        elif kind == CLOSE:
            need(not rest, "a control message after CLOSE")
            self.close_reason = body[0]
        return rest

    def frames_of_streams(self):
        buffer = self.yamux_input
        while len(buffer) >= 12:
            version, kind, flags, id, length = struct.unpack(">BBHII", buffer[:12])
            need(version == 0, f"yamux version {version}")
            size = 12 + (length if kind == DATA else 0)
            need(size <= 12 + INITIAL_WINDOW, f"a yamux frame of {length} bytes")
            if len(buffer) < size:
                return
            data = bytes(buffer[12:size])
            del buffer[:size]
            if kind == YPING:
                if flags & SYN:
                    self.yamux(YPING, ACK, 0, length)
            elif kind in (DATA, WINDOW):
                self.frame_of_stream(kind, flags, id, length, data)
            else:
                raise WireError(f"a yamux frame of type {kind}")

    def frame_of_stream(self, kind, flags, id, length, data):
        if flags & SYN:
            need(id in self.opens, f"stream {id} without OPEN")
            self.streams[id] = Stream(self, id, self.opens.pop(id))
            self.incoming.append(self.streams[id])
            self.yamux(WINDOW, ACK, id, 0)
        stream = self.streams.get(id)
        if stream is None:
            return  # reset by this end; the other had not heard of it
        if kind == WINDOW:
            stream.window += length
        else:
            stream.credit -= len(data)
            stream.came += len(data)
            need(stream.credit >= 0, f"stream {id} has sent more than its window")
            need(not (data and stream.fin), f"stream {id} goes on after its FIN")
            need(stream.end is None or stream.came <= stream.end, f"stream {id} goes on after its END")
            stream.input += data
        if flags & FIN:
            stream.fin = True
        if flags & RST and stream.reason is None:
            stream.reason = DROPPED

    # ---- the end

    def send_close(self, reason):
        if not self.close_sent:
            self.close_sent = True
            self.control(CLOSE, bytes([reason]))
            self.output.put(b"")

    def close(self, reason=DONE):
        """Ends the session, or goes along with the other end when it has, until both know that everything arrived. The reason that counts."""
        with self.changed:
            self.send_close(reason if self.close_reason is None else self.close_reason)
            self.wait(lambda: self.empties >= 1)
            if self.is_initiator:
                self.output.put(b"")
                self.wait(lambda: self.empties >= 2)
            else:
                self.wait(lambda: self.empties >= 2)
                self.output.put(b"")
                # Until the initiator has let the pipe go.
                self.wait(lambda: self.gone)
        self.output.put(None)
        self.frames.close()
        return self.close_reason

    def closed(self):
        """Waits until the other end closes, and goes along. Its reason."""
        with self.changed:
            self.wait(lambda: self.close_reason is not None, 2 * PATIENCE)
        return self.close()
