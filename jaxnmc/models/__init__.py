"""Models as pure functions over `ops`."""
