"""The report of one or several runs: figures, tables and the search viewer, as a page, as images and as Markdown."""
