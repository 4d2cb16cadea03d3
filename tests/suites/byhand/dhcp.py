"""dhcp.py LINK OWN-ADDRESS OFFERED-ADDRESS: a DHCP server for one guest; prints a line for each lease. Standard library only."""
import socket
import struct
import sys

link, own, offered = sys.argv[1:]
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5


def options(packet):
    found, at = {}, 240
    while at < len(packet) and packet[at] != 255:
        if packet[at] == 0:
            at += 1
            continue
        length = packet[at + 1]
        found[packet[at]] = packet[at + 2 : at + 2 + length]
        at += 2 + length
    return found


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
server.bind(("", 67))
print(f"serving {offered} on {link}", flush=True)
while True:
    packet, _ = server.recvfrom(1500)
    asked = options(packet).get(53, b"\0")[0]
    answer = {DISCOVER: OFFER, REQUEST: ACK}.get(asked)
    if len(packet) < 240 or packet[0] != 1 or answer is None:
        continue
    header = bytearray(packet[:240])
    header[0] = 2
    header[16:20] = socket.inet_aton(offered)
    header[20:24] = socket.inet_aton(own)
    given = [(53, bytes([answer])), (54, socket.inet_aton(own)), (51, struct.pack("!I", 3600)), (1, socket.inet_aton("255.255.255.0"))]
    given += [(3, socket.inet_aton(own)), (6, socket.inet_aton(own))]
    server.sendto(bytes(header) + b"".join(bytes([code, len(value)]) + value for code, value in given) + b"\xff", ("255.255.255.255", 68))
    if answer == ACK:
        print(f"leased {offered} to {packet[28:34].hex(':')}", flush=True)
