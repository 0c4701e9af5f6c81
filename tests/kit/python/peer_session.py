"""A machine by claviger_session.py, against the real program.

Standard input: one line of JSON, see `main`. Standard output: `listening PORT`, unless told to connect; `handshake HASH` in hex; what the
scenario says; `done`. Any failure is a traceback on standard error and exit status 1. No peer lives longer than two minutes.
"""
import hashlib
import json
import random
import signal
import socket
import struct
import sys
import threading

import claviger_session as claviger

LIFE = 120  # seconds for the whole peer


def say(*words):
    print(*words, flush=True)


def together(*works):
    """Runs each work in a thread of its own; the first failure of any is raised."""
    failures = []

    def run(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ---- scenarios of the initiator -----------------------------------------------------------------------------------------------------------


def echo(session, service):
    """Streams of all sizes at once to a service that gives back what it gets, in pieces of all sizes, each half-closed before all has come back."""
    dice = random.Random(7)
    sizes = [0, 1, 65519, 65520, 262144, 262145] + [dice.randrange(1_000_000) for _ in range(6)]
    works = []
    for size in sizes:
        stream, data, pieces = session.open(service), dice.randbytes(size), random.Random(size)

        def send(stream=stream, data=data, pieces=pieces):
            while data:
                piece = pieces.choice((1, 100, 5000, 70000))
                stream.write(data[:piece])
                data = data[piece:]
            stream.finish()

        def receive(stream=stream, data=data):
            heard = stream.read_all()
            if heard != data:
                raise claviger.WireError(f"{len(data)} bytes came back as {len(heard)} others")

        works += [send, receive]
    together(*works)
    say("echoed", len(sizes), "streams")


def resets(session, service):
    """A stream that this end gives up; the session goes on."""
    stream = session.open(service)
    stream.write(b"one")
    if stream.read() != b"one":
        raise claviger.WireError("another echo")
    stream.reset(claviger.APPLICATION + 7)
    echo(session, service)


def unended(session, service):
    """A stream that has FIN and no END has not ended: the echo gives what came, and no end of its own, until this end resets it."""
    session.ping(b"are you?")
    stream = session.open(service)
    stream.write(b"four")
    session.yamux(claviger.DATA, claviger.FIN, stream.id, 0)
    if stream.read() != b"four":
        raise claviger.WireError("another echo")
    stream.reset(claviger.DROPPED)
    echo(session, service)


def miscounted(session, service):
    """A stream whose END promises a byte more than came: whoever does that is not spoken to any more."""
    stream = session.open(service)
    stream.write(b"four")
    session.control(claviger.END, struct.pack(">IQ", stream.id, 5))
    session.yamux(claviger.DATA, claviger.FIN, stream.id, 0)
    with session.changed:
        session.changed.wait_for(lambda: session.failure, claviger.PATIENCE)
    say("cut", str(session.failure))


def rekey(session, service):
    """More records than one key is good for."""
    stream, data = session.open(service), random.Random(7).randbytes(claviger.REKEY + 1000)

    def send():
        for byte in data:
            stream.write(bytes([byte]))
        stream.finish()

    def receive():
        if stream.read_all() != data:
            raise claviger.WireError("another echo")

    together(send, receive)
    say("sent", session.records.sending.n > claviger.REKEY)
    echo(session, service)


# ---- scenarios of the responder -----------------------------------------------------------------------------------------------------------


def digest(session, service):
    """Takes a stream to its end and answers with what was heard."""
    stream = accepted(session, service)
    heard = stream.read_all()
    stream.write(f"{len(heard)} {hashlib.sha256(heard).hexdigest()}\n".encode())
    stream.finish()


def cut(session, service):
    """Answers, has FIN without END, and closes."""
    stream = accepted(session, service)
    stream.write(b"half an answer\n")
    session.yamux(claviger.DATA, claviger.FIN, stream.id, 0)
    session.close(claviger.DONE)


def refuse(session, service):
    """No such service."""
    accepted(session, service).reset(claviger.NO_SERVICE)


def forbid(session, service):
    """Not for this peer."""
    accepted(session, service).reset(claviger.NOT_ALLOWED)


def own_reset(session, service):
    """The application's own code."""
    stream = accepted(session, service)
    stream.write(b"some\n")
    stream.reset(claviger.APPLICATION + 9)


def flipped(session, service):
    """A record that does not open."""
    stream = accepted(session, service)
    stream.write(b"whole\n")
    session.ping(b"are you?")
    session.records.sending.n += 1
    stream.write(b"flipped\n")
    with session.changed:
        session.changed.wait_for(lambda: session.failure, claviger.PATIENCE)


def accepted(session, service):
    stream = session.accept()
    if stream.service != service:
        raise claviger.WireError(f"a stream for {stream.service}")
    return stream


INITIATOR = {f.__name__: f for f in (echo, resets, unended, miscounted, rekey)}
RESPONDER = {f.__name__: f for f in (digest, cut, refuse, forbid, own_reset, flipped)}


def door(port):
    """What gives a pipe at each call: to the port, or else of whoever comes to a port of this end's."""
    if port:
        return lambda: ready(socket.create_connection(("127.0.0.1", port), claviger.PATIENCE))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(claviger.PATIENCE)
    say("listening", listener.getsockname()[1])
    return lambda: ready(listener.accept()[0])


def ready(pipe):
    pipe.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pipe.settimeout(claviger.PATIENCE)
    return pipe


def main():
    """`initiator`, `responder`: name, role, static public key; `onion`: public key of the responder's service; `port`: its virtual port; `suite`;
    `private`: this end's static private key; `kind`: number; `psk`: pre-shared key or null; `connect`: TCP port, which makes it the initiator, or null;
    `scenario`, `service`; `resume`: whether the session is then resumed and the scenario played again: by the
    initiator twice; by the responder, who cuts it and what resumes it first, once. Keys in hex."""
    signal.alarm(LIFE)
    told = json.loads(sys.stdin.readline())
    ends = [(name, role, bytes.fromhex(key)) for name, role, key in (told["initiator"], told["responder"])]
    ends = claviger.Ends(*ends, bytes.fromhex(told["onion"]), told["port"], told["suite"])
    psk = bytes.fromhex(told["psk"]) if told["psk"] else None
    arguments = (ends, told["kind"], bytes.fromhex(told["private"]), psk)
    pipe = door(told["connect"])
    frames = claviger.Frames(pipe())
    if told["connect"]:
        established = claviger.initiate(frames, *arguments)
    else:
        established = claviger.respond(frames, *arguments)
    say("handshake", established.hash.hex())
    session = claviger.Session(frames, established)
    if not told["connect"]:
        RESPONDER[told["scenario"]](session, told["service"])
        if told["resume"]:
            # Not before all has arrived.
            session.ping(b"are you?")
            frames.close()
            chains = [claviger.Chain(established)]
            # The first time it breaks before it is confirmed, as far as this end can tell: the other comes by the chain that it has begun.
            for heard in (False, True):
                frames = claviger.Frames(pipe())
                established = claviger.answer_resumption(frames, ends, chains)
                claviger.confirmed(frames, established)
                if not heard:
                    frames.close()
            session = claviger.Session(frames, established)
            say("resumed")
            RESPONDER[told["scenario"]](session, told["service"])
        if told["scenario"] not in ("cut", "flipped"):
            say("closed", session.closed())
        return say("done")

    INITIATOR[told["scenario"]](session, told["service"])
    # Once after the pipe was cut, with a link that got lost and an answer that was not confirmed, and once beside the running session.
    for cut in (True, False) if told["resume"] else ():
        chain, before = claviger.Chain(established), session
        if cut:
            frames.close()
            chain.next()
            frames = claviger.Frames(pipe())
            chain = claviger.Chain(claviger.resume(frames, ends, chain))
            frames.close()
        frames = claviger.Frames(pipe())
        established = claviger.resume(frames, ends, chain)
        claviger.confirm(frames, established)
        session = claviger.Session(frames, established)
        INITIATOR[told["scenario"]](session, told["service"])
        say("resumed")
        if not cut:
            with before.changed:
                before.changed.wait_for(lambda: before.failure or before.close_reason is not None, claviger.PATIENCE)
            say("before", before.close_reason, before.failure)
    if told["scenario"] != "miscounted":
        say("closed", session.close())
    say("done")


if __name__ == "__main__":
    main()
