"""The docker-like half: names, bundles, monitors, logs, and the verbs as functions."""
