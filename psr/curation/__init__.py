"""Data curation: sources, steps, judged pairs, annotation, decontamination."""
