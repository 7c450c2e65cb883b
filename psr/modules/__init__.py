"""The policy's folder and the LightningModules that train or run it."""
