"""What the tests stand on: a tiny rootfs, a private engine, terminals, users, and the census."""
