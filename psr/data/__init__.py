"""LightningDataModules, and the trace journal that the self-rewarding one keeps."""
