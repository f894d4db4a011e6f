"""Other modules of Debian that keep sessions, set up as their manuals say."""

PEERS = []
