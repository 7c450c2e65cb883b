"""The commands of `psr` besides LightningCLI's: each is one function with typed arguments."""
