"""Files that people write and read: JSON lines, tables, problems."""
