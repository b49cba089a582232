"""Images: from registries and archives into the store, and out again; nothing runs here."""
