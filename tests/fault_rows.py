"""What breaks on a host and on the network, by number; tests that make it are marked `fault_row(NUMBER)`.

All of them: `scripts/test -k fault_row`. After each fault the same holds: what was acknowledged is delivered,
stands in the spool, or has failed with its notification; nobody gets it twice, unless the final reply was
lost, and then the file says so; what was refused is never delivered; what arrives is what was submitted,
octet for octet; memory, descriptors and temporary files stay bounded; trouble with our resources is answered
with 4yz; and when the fault is over, the queue drains.
"""

ROWS = {
    # Programs and disks.
    1: "kill -9 of the receiver or the runner at every system call",
    2: "a power cut: only what was synced is sure to be there",
    3: "torn, lost or flipped bytes in a spool file",
    4: "no space, no inodes or no quota at create, write, fsync, rename or a journal's line",
    5: "an fsync that fails, and a second one that would succeed and lie",
    6: "no descriptors left",
    7: "EINTR, and writes that stop short",
    8: "a file system that turns read-only",
    9: "empty, truncated, garbled and foreign entries in the queue: a directory, a FIFO, a socket, a link",
    10: "a clock ten years ahead, or a year behind",
    11: "64 runners on one spool",
    12: "a runner that is stopped for an hour and then continued",
    # The next hop.
    13: "a connection lost at each step before the final dot",
    14: "a connection lost after the dot, before its reply",
    15: "a connection lost after the final 250",
    16: "a peer that is slow, endless or silent: a byte a minute, 250- for ever, a 1 GB line, a zero window",
    17: "4yz and 5yz at every command, and all mixes of fates over three recipients",
    18: "replies out of step: 421 in a pipeline, garbage, 6yz, NUL, 354 to MAIL, a reply that comes early",
    19: "TLS with an expired, self-signed or wrong certificate, an old version, clear text after 220",
    20: "DNS that has no such name, fails, is silent, truncates, loops, or names 500 exchangers or loopback",
    21: "every provider refuses the login",
    # Loads and surroundings.
    22: "a deep queue",
    23: "five seconds for each fsync",
    24: "SIGTERM under load",
    25: "a DKIM key or a configuration that is missing, or replaced during a run",
    26: "a ledger or a standard error that cannot be written",
    27: "a power cut of ext4 without a journal, of XFS and of btrfs, with a deep queue and deferred mail",
    28: "a power cut while a message to many is in hand, one of them at a server that does not answer",
    29: "the last move of one message fails for a reason of its own",
    30: "a disk that fills up with twenty destinations in flight and long replies",
    31: "a bad sector in the middle of a spool file",
    32: "many terminations and full disks with one message in hand",
    33: "20,000 dead recipients with long replies until the mail is too old",
    34: "a clock that is ten years ahead for minutes, with and without the spool's state",
    35: "a standard error that nobody reads",
    36: "sweep, operator commands, runners and notifications at the same time",
}
