"""A node of py-libp2p that is driven line by line, as `interop_peer` of ours is.

    peer.py TRANSPORT SECURITY

Every line of standard input is `{"id": .., "do": ..}`; it is answered by `{"id": .., "ok": ..}` or
`{"id": .., "error": ".."}`. Lines without `id` are events. Streams of `/calimero/stream/0.0.2` that
others open are echoed, frame by frame.
"""

import hashlib
import json
import os
import sys

import trio
from libp2p import create_yamux_muxer_option, new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

STREAM = TProtocol("/calimero/stream/0.0.2")
MESHSUB = [TProtocol("/meshsub/1.2.0"), TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0")]
# Largest payload of a frame, in bytes.
MAX_PAYLOAD = 8 * 1024 * 1024


def tell(**line):
    print(json.dumps(line), flush=True)


def pattern(length):
    return (bytes(range(251)) * (length // 251 + 1))[:length]


async def read_exactly(stream, length):
    """`length` bytes, or None if the stream ends before the first of them."""
    data = bytearray()
    while len(data) < length:
        try:
            part = await stream.read(length - len(data))
        except StreamEOF:
            part = b""
        if not part:
            if not data:
                return None
            raise EOFError(f"cut after {len(data)} of {length} bytes")
        data += part
    return bytes(data)


async def write_frame(stream, payload):
    await stream.write(len(payload).to_bytes(4, "big") + payload)


async def read_frame(stream):
    prefix = await read_exactly(stream, 4)
    if prefix is None:
        return None
    length = int.from_bytes(prefix, "big")
    if length > MAX_PAYLOAD:
        raise ValueError(f"a frame of {length} bytes")
    return await read_exactly(stream, length) if length else b""


async def echo(stream):
    try:
        while (payload := await read_frame(stream)) is not None:
            await write_frame(stream, payload)
        await stream.close()
    except Exception as error:
        tell(event="stream_failed", error=repr(error))


class Peer:
    def __init__(self, transport, security):
        key_pair = create_new_key_pair()
        quic = transport == "quic"
        listen = Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1" if quic else "/ip4/127.0.0.1/tcp/0")
        noise_key = create_new_x25519_key_pair().private_key
        offered = {
            "tls": {TLS: TLSTransport(key_pair)},
            "noise": {NOISE: NoiseTransport(key_pair, noise_privkey=noise_key)},
        }[security]
        self.listen = listen
        self.host = new_host(
            key_pair=key_pair,
            sec_opt=offered,
            muxer_opt=create_yamux_muxer_option(),
            listen_addrs=[listen],
            enable_quic=quic,
        )
        self.host.set_stream_handler(STREAM, echo)
        # A mesh of two: the heartbeat grafts whom it finds.
        router = GossipSub(
            protocols=MESHSUB, degree=4, degree_low=2, degree_high=8, heartbeat_interval=1,
            max_messages_per_topic_per_second=1000.0,
        )
        self.pubsub = Pubsub(self.host, router, strict_signing=True)

    async def run(self, nursery):
        self.nursery = nursery
        async with (
            self.host.run([self.listen]),
            background_trio_service(self.pubsub),
            background_trio_service(self.pubsub.router),
        ):
            await self.pubsub.wait_until_ready()
            peer = str(self.host.get_id())
            tell(event="started", peer=peer, listening=[str(a) for a in self.host.get_addrs()])
            async for line in trio.wrap_file(sys.stdin):
                nursery.start_soon(self.answer, json.loads(line))
        tell(event="stopped")

    async def answer(self, line):
        number, command = line.pop("id"), line.pop("do")
        try:
            tell(id=number, ok=await getattr(self, f"do_{command}")(**line))
        except Exception as error:
            tell(id=number, error=repr(error))

    async def do_dial(self, address):
        info = info_from_p2p_addr(Multiaddr(address))
        await self.host.connect(info)
        return str(info.peer_id)

    async def do_connected(self):
        return [str(peer) for peer in self.host.get_connected_peers()]

    async def do_disconnect(self, peer):
        await self.host.disconnect(ID.from_base58(peer))

    async def do_identify(self, peer):
        stream = await self.host.new_stream(ID.from_base58(peer), [IDENTIFY])
        told = parse_identify_response(
            await read_length_prefixed_protobuf(stream, use_varint_format=True)
        )
        return {
            "protocol_version": told.protocol_version,
            "agent_version": told.agent_version,
            "listening": [str(Multiaddr(bytes(address))) for address in told.listen_addrs],
            "protocols": list(told.protocols),
        }

    async def do_ping(self, peer, count):
        return await PingService(self.host).ping(ID.from_base58(peer), count)

    async def do_frames(self, peer, sizes):
        stream = await self.host.new_stream(ID.from_base58(peer), [STREAM])
        for size in sizes:
            sent = pattern(size)
            await write_frame(stream, sent)
            received = await read_frame(stream)
            if received != sent:
                raise ValueError(f"{received and len(received)} bytes came back instead of {size}")
        await stream.close()
        return sizes

    async def do_raw(self, peer, claimed, sent):
        """Claims a payload of `claimed` bytes, sends `sent` of them and closes."""
        stream = await self.host.new_stream(ID.from_base58(peer), [STREAM])
        await stream.write(claimed.to_bytes(4, "big") + pattern(sent))
        await stream.close()

    async def do_subscribe(self, topic):
        subscription = await self.pubsub.subscribe(topic)
        self.nursery.start_soon(self.hear, topic, subscription)

    async def hear(self, topic, subscription):
        while True:
            message = await subscription.get()
            source = str(ID(message.from_id))
            tell(event="message", topic=topic, source=source, bytes=len(message.data),
                 sha256=hashlib.sha256(message.data).hexdigest())

    async def do_subscribers(self, topic):
        return [str(peer) for peer in self.pubsub.peer_topics.get(topic, ())]

    async def do_mesh(self, topic):
        return [str(peer) for peer in self.pubsub.router.mesh.get(topic, ())]

    async def do_publish(self, topic, size):
        await self.pubsub.publish(topic, pattern(size))


async def main():
    peer = Peer(sys.argv[1], sys.argv[2])
    async with trio.open_nursery() as nursery:
        await peer.run(nursery)
        nursery.cancel_scope.cancel()
    # Its threads and services may hold the process; what was asked for is answered.
    sys.stdout.flush()
    os._exit(0)


trio.run(main)
