"""Video in, painted video out: sources, the three threads between them, and sinks."""
