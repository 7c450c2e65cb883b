"""The policy: a causal language model as a Hugging Face folder, its adapters, and how it lies over GPUs."""
