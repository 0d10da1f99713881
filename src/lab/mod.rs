//! Loopback hosts to try everything on: an SSH server, a directory and a small supervisor each.
