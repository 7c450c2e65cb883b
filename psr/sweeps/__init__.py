"""Sweeps: W&B sweep files and their trials on this machine."""
