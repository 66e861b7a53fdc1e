"""`python3 cut-power.py MOUNT_POINT PROCESS_ID` cuts the power of a process and its disk.

The process is frozen, and its ext4 file system shut down without writing its journal or its cache. From then on every access fails
with an input/output error; after unmounting and mounting again only what had been synced is there. The process must be frozen first,
as by a real power cut: a sync that is under way when ext4 shuts down can return success though its extents were never committed.
"""

import fcntl
import os
import signal
import struct
import sys

# _IOR('X', 125, __u32) of fs/ext4/ext4.h, and its flag that leaves the journal unwritten.
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = 2

directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
os.kill(int(sys.argv[2]), signal.SIGSTOP)
fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
