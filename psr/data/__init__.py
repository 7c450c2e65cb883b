"""Data: files, problems, samples, traces, and the LightningDataModules."""
