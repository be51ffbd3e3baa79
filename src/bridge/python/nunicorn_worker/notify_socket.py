"""Makes the socket for messages to systemd, and passes it to the master over Node's channel: see src/master/systemd.ts."""

import array
import json
import os
import socket

address = os.environ["NOTIFY_SOCKET"]
if address.startswith("@"):
    address = "\0" + address[1:]
systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
systemd.connect(address)
systemd.setblocking(False)
channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
message = json.dumps({"inode": os.fstat(systemd.fileno()).st_ino}).encode() + b"\n"
# With the channel's own end: while the master holds that, the channel does not end, and the socket stays open.
descriptors = array.array("i", [systemd.fileno(), channel.fileno()])
channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
