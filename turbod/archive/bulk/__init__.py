"""History in bulk: a walk over an archive, and `turbod archive ls | get | verify`."""
