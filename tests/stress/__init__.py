"""Many threads, many operations, no mercy: what races there are should be lost here."""
