"""Making training files: sources, steps, judged pairs, annotation, decontamination."""
