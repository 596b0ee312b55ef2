"""The long way: reads packets from a TUN device and writes them back to it some time later.

Arguments: the name of the device, which must exist, and the delay in milliseconds. Ends with its
standard input, and so with the process that started it.
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
# Above it packets are dropped, as by any full queue: 100 Mbit/s of full packets for half a second.
MAX_QUEUED = 4096


def main():
    name, delay = sys.argv[1], float(sys.argv[2]) / 1000
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    print("ready", flush=True)
    queue = collections.deque()
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        readable, _, _ = select.select([device, 0], [], [], wait)
        if 0 in readable and not os.read(0, 4096):
            return
        if device in readable:
            receive(device, queue, delay)
        while queue and queue[0][0] <= time.monotonic():
            send(device, queue.popleft()[1])


def receive(device, queue, delay):
    for _ in range(64):
        try:
            packet = os.read(device, 65536)
        except BlockingIOError:
            return
        if len(queue) < MAX_QUEUED:
            queue.append((time.monotonic() + delay, packet))


def send(device, packet):
    try:
        os.write(device, packet)
    except OSError:
        pass  # The packet is lost, as packets are.


main()
