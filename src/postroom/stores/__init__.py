"""Where messages are kept: what a store promises (``base``), and the store on SQLite."""
