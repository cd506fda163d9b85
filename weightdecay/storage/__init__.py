"""Run directories, checkpoints, saved results and fingerprints."""
