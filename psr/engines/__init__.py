"""Engines: what turns prompts into completions. Search code cannot tell them apart."""
