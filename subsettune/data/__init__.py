"""Examples as memory-mapped Arrow files, and where they come from."""
