"""The OCI runtime: create, start, state, kill, delete, exec. Knows nothing of images or engines."""
