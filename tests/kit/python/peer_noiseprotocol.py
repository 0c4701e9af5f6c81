"""A peer by the library noiseprotocol."""
from noise.connection import Keypair, NoiseConnection

import wire


class Noise:
    def __init__(self, args):
        self.noise = NoiseConnection.from_name(args.protocol.encode())
        if args.initiator:
            self.noise.set_as_initiator()
        else:
            self.noise.set_as_responder()
        if args.kind != wire.NN:
            self.noise.set_keypair_from_private_bytes(Keypair.STATIC, args.private)
        if args.remote_public:
            self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, args.remote_public)
        self.noise.set_prologue(args.prologue)
        if "psk" in args.protocol:
            # To begin with: `mix` puts the real one in its place.
            self.noise.set_psks(psks=[bytes(32)])
        self.noise.start_handshake()

    @property
    def finished(self):
        return self.noise.handshake_finished

    def mix(self, psk):
        self.noise.noise_protocol.psks[0] = psk

    def write(self, payload):
        return bytes(self.noise.write_message(payload))

    def read(self, message):
        return bytes(self.noise.read_message(message))

    def hash(self):
        return self.noise.get_handshake_hash()

    def encrypt(self, data):
        return self.noise.encrypt(data)

    def decrypt(self, message):
        return self.noise.decrypt(message)


wire.run(Noise)
